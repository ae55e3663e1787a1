import { faultsSuite } from './faults-suite.js';

faultsSuite('table-growth');
