import { faultsSuite } from './faults-suite.js';

for (const setting of ['plain', 'tiny-caches', 'lazy', 'version-2', 'bitmaps']) faultsSuite(setting);
