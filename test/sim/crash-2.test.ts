import { crashSuite } from './crash-suite.js';

crashSuite(20000, 750);
