import { crashSuite } from './crash-suite.js';

crashSuite(10000, 750);
