/** A server that goes away with requests: they are requeued and issued again in the trace, as a disk's are. */
import { expect, test } from '@jest/globals';
import { openImage, TraceRecorder } from '../../src/index.js';
import { dataAt, useScriptedServer } from '../support/nbd-script.js';
import { peers } from '../support/peers.js';
import { runOk } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const listen = useScriptedServer();

peers('blkparse')('a trace of an NBD client', () => {
  test('has R and another D for what was sent again', async () => {
    await listen(tmp('socket'), async (peer, connection) => {
      await peer.serve();
      const request = await peer.request();
      if (connection === 0) {
        peer.socket.destroy();
        return;
      }
      peer.chunk(request, 1, dataAt(request.offset, new Uint8Array(request.bytes).fill(9)), true);
      while ((await peer.request()).command !== 2) { /* until it says goodbye */ }
      peer.close();
    });
    const recorder = new TraceRecorder(tmp('trace'));
    const name = `json:${JSON.stringify({ driver: 'nbd', server: { type: 'unix', path: tmp('socket') }, 'reconnect-delay': 10 })}`;
    const node = await openImage(name, { format: 'raw', readOnly: true, trace: recorder });
    const buffer = new Uint8Array(4096);
    await node.read(8192, buffer);
    expect(buffer.every((byte) => byte === 9)).toBe(true);
    await node.close();
    await recorder.stop();
    const text = await runOk('blkparse', ['-q', '-i', tmp('trace'), '-f', '%d %a %S %n\\n']);
    const file = text.split('\n').filter((line) => line.endsWith(' 16 8')).map((line) => line.split(' ')[1]);
    expect(file.join('')).toMatch(/DRDC*$/);
    expect(file.filter((action) => action === 'R')).toHaveLength(1);
  });
});
