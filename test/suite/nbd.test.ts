import { truncateSync, writeFileSync } from 'node:fs';
import { openNbdDriver } from '../../src/protocol/nbd.js';
import { nbdkitArgs, qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { driverSuite } from './driver-suite.js';

const tmp = useTmp();
const start = useNbdPeers();
let count = 0;

peers('qemu-nbd')('on qemu-nbd', () => {
  driverSuite('nbd', {
    stores: true,
    make: async (bytes) => {
      const file = tmp(`disk-${++count}`);
      const socket = tmp(`socket-${count}`);
      writeFileSync(file, '');
      truncateSync(file, bytes);
      await start('qemu-nbd', qemuNbdArgs(socket, file, '--discard=unmap'), socket);
      return openNbdDriver({ address: { type: 'unix', path: socket } });
    },
  });
});

peers('nbdkit')('on nbdkit', () => {
  for (const [title, connections, more] of [
    ['with four connections', 4, []],
    ['with simple replies', 1, ['--no-sr']],
    ['with blocks of 4 KiB', 1, ['--filter=blocksize-policy', 'blocksize-minimum=4096', 'blocksize-preferred=4096', 'blocksize-maximum=32768', 'blocksize-error-policy=error']],
  ] as const) {
    driverSuite(`nbd ${title}`, {
      stores: true,
      make: async (bytes) => {
        const socket = tmp(`socket-${++count}`);
        const split = more.findIndex((argument) => !argument.startsWith('--'));
        const [filters, parameters] = split < 0 ? [more, []] : [more.slice(0, split), more.slice(split)];
        await start('nbdkit', nbdkitArgs(socket, ...filters, 'memory', String(bytes), ...parameters), socket);
        return openNbdDriver({ address: { type: 'unix', path: socket }, connections });
      },
    });
  }
});
