import { crashSuite } from './crash-suite.js';

crashSuite(30000, 750);
