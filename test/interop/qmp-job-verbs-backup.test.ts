import { jobMatrixSuite } from '../support/job-matrix-suite.js';

jobMatrixSuite('backup', 'backup none');
