import { NullDriver } from '../../src/protocol/null.js';
import { driverSuite } from './driver-suite.js';

driverSuite('null', { stores: false, make: async (bytes) => new NullDriver({ bytes }) });
