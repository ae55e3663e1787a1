import { jobMatrixSuite } from '../support/job-matrix-suite.js';

jobMatrixSuite('mirror');
