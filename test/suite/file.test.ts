import { openFileDriver } from '../../src/protocol/file.js';
import { useTmp } from '../support/tmp.js';
import { driverSuite } from './driver-suite.js';

const tmp = useTmp();
let made = 0;

for (const direct of [false, true]) {
  driverSuite(direct ? 'file with O_DIRECT' : 'file', {
    stores: true,
    make: async (bytes) => {
      const driver = await openFileDriver(tmp(`image-${made++}`), { create: true, direct });
      await driver.resize!(bytes);
      return driver;
    },
  });
}
