import { crashSuite } from './crash-suite.js';

crashSuite(40000, 750);
