import { afterEach } from '@jest/globals';
import { truncateSync, writeFileSync } from 'node:fs';
import { BlockBackend } from '../../src/block/backend.js';
import { BlockNode } from '../../src/block/node.js';
import { NbdServer } from '../../src/nbd/server.js';
import { MemoryDriver } from '../../src/protocol/memory.js';
import { openNbdDriver } from '../../src/protocol/nbd.js';
import { nbdkitArgs, qemuNbdArgs, useNbdPeers } from '../support/nbd-peers.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { driverSuite } from './driver-suite.js';

const tmp = useTmp();
const start = useNbdPeers();
let count = 0;

const servers: NbdServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

driverSuite('nbd on our own server', {
  stores: true,
  make: async (bytes) => {
    const node = new BlockNode({ name: 'disk', driver: new MemoryDriver({ bytes, growable: false }) });
    const server = new NbdServer();
    servers.push(server);
    server.addExport({ name: 'disk', description: null, backend: new BlockBackend('disk', node), readOnly: false, multiConn: true, bitmaps: [], allocationDepth: false });
    const path = tmp(`own-${++count}`);
    await server.listen({ unix: path });
    return openNbdDriver({ address: { type: 'unix', path }, exportName: 'disk', connections: 2 });
  },
});

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
