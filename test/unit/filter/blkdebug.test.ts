import { describe, expect, test } from '@jest/globals';
import { BlockNode } from '../../../src/block/node.js';
import { makeRequest, RequestFlag, type BlockRequest } from '../../../src/block/request.js';
import { BlkdebugDriver, parseBlkdebugName, type BlkdebugLimits } from '../../../src/filter/blkdebug.js';
import { parseBlkdebugConfig, type BlkdebugRule } from '../../../src/filter/blkdebug-rules.js';
import { MemoryDriver } from '../../../src/protocol/memory.js';

class Watched extends MemoryDriver {
  readonly seen: string[] = [];

  override submit(request: BlockRequest): Promise<void> {
    this.seen.push(`${request.op} ${request.offset}+${request.bytes}`);
    return super.submit(request);
  }
}

function debugged(config: string | readonly BlkdebugRule[], limits: BlkdebugLimits = {}): { readonly node: BlockNode; readonly seen: string[]; readonly event: (name: string) => void } {
  const below = new Watched({ bytes: 65536, growable: false });
  const image = new BlockNode({ name: 'image', driver: below });
  const driver = new BlkdebugDriver({ image, rules: typeof config === 'string' ? parseBlkdebugConfig(config) : config, ...limits });
  return { node: new BlockNode({ name: 'blkdebug', driver }), seen: below.seen, event: driver.debugEvent };
}

/** The errno that each request met, or `ok`. */
async function outcomes(...requests: readonly Promise<unknown>[]): Promise<string[]> {
  return Promise.all(requests.map((request) => request.then(() => 'ok', (error: { readonly errno?: string }) => error.errno ?? 'no errno')));
}

const block = new Uint8Array(512);
const inject = (...lines: readonly string[]): string => `[inject-error]\n${lines.map((line) => line.replace(/^(\w+)=(.*)$/, '$1 = "$2"')).join('\n')}\n`;
const setState = (...lines: readonly string[]): string => inject(...lines).replace('inject-error', 'set-state');

describe('rules', () => {
  test('without a state all requests fail from the event on; EIO where nothing else is said', async () => {
    const { node, event } = debugged(inject('event=l2_load'));
    expect(await outcomes(node.read(0, block))).toEqual(['ok']);
    event('l2_load');
    expect(await outcomes(node.read(0, block), node.write(0, block), node.writeZeroes(0, 512), node.discard(0, 512), node.flush()))
      .toEqual(['EIO', 'EIO', 'EIO', 'EIO', 'EIO']);
    expect((await node.blockStatus(0, 512)).bytes).toBe(512);
  });

  test('`once` fails one request', async () => {
    const { node, event } = debugged(inject('event=none', 'errno=28', 'once=on'));
    expect(await outcomes(node.read(0, block))).toEqual(['ENOSPC']);
    event('none');
    expect(await outcomes(node.read(0, block))).toEqual(['ok']);
  });

  test('`sector` fails those that touch it, and no flush', async () => {
    const { node } = debugged(inject('event=none', 'sector=4'));
    expect(await outcomes(node.read(1536, block), node.read(2048, block), node.write(2047, block), node.read(2560, block), node.flush()))
      .toEqual(['ok', 'EIO', 'EIO', 'ok', 'ok']);
  });

  test.each([
    ['read', ['EIO', 'ok', 'ok', 'ok', 'ok', 'ok']], ['write', ['ok', 'EIO', 'ok', 'ok', 'ok', 'ok']], ['write-zeroes', ['ok', 'ok', 'EIO', 'ok', 'ok', 'ok']],
    ['discard', ['ok', 'ok', 'ok', 'EIO', 'ok', 'ok']], ['flush', ['ok', 'ok', 'ok', 'ok', 'EIO', 'ok']], ['block-status', ['ok', 'ok', 'ok', 'ok', 'ok', 'EIO']],
  ])('`iotype` %s', async (ioType, expected) => {
    const { node } = debugged(inject('event=none', `iotype=${ioType}`));
    expect(await outcomes(node.read(0, block), node.write(0, block), node.writeZeroes(0, 512), node.discard(0, 512), node.flush(), node.blockStatus(0, 512))).toEqual(expected);
  });

  test('states: rules hold in theirs, and a new one is taken once all rules of the event were seen', async () => {
    const { node, event } = debugged(setState('event=l2_load', 'state=1', 'new_state=2') + setState('event=l2_load', 'state=2', 'new_state=3') +
      inject('event=read_aio', 'state=2', 'errno=28') + inject('event=read_aio', 'state=3', 'errno=12'));
    const states: string[] = [];
    for (let i = 0; i < 3; i++) {
      event('read_aio');
      states.push(...await outcomes(node.read(0, block)));
      event('l2_load');
    }
    expect(states).toEqual(['ok', 'ENOSPC', 'ENOMEM']);
  });

  test('of several rules of one event the first that fits is used; another event replaces them only where it has rules', async () => {
    const { node, event } = debugged(inject('event=l2_load', 'errno=12', 'sector=1') + inject('event=l2_load', 'errno=28') + inject('event=read_aio', 'errno=16'));
    event('l2_load');
    event('l2_update');
    expect(await outcomes(node.read(512, block), node.read(0, block))).toEqual(['ENOMEM', 'ENOSPC']);
    event('read_aio');
    expect(await outcomes(node.read(512, block))).toEqual(['EBUSY']);
  });

  test('errno 0 fails nothing', async () => {
    const { node } = debugged(inject('event=none', 'errno=0'));
    expect(await outcomes(node.read(0, block))).toEqual(['ok']);
  });

  test('the node itself tells of writes, of zeroes, and of what padding reads', async () => {
    for (const [event, request] of [['pwritev', 'write'], ['pwritev_zero', 'write-zeroes'], ['pwritev_rmw_head', 'head'], ['pwritev_rmw_after_tail', 'tail']] as const) {
      const { node } = debugged(inject(`event=${event}`), { align: 512 });
      const sent: Readonly<Record<string, () => Promise<void>>> = {
        write: () => node.write(512, block), 'write-zeroes': () => node.writeZeroes(512, 512), head: () => node.write(100, new Uint8Array(1436)), tail: () => node.write(512, new Uint8Array(600)),
      };
      for (const [name, send] of Object.entries(sent)) {
        if (name === request) expect({ event, name, outcome: await outcomes(send()) }).toEqual({ event, name, outcome: ['EIO'] });
      }
    }
  });

  test('`pwritev_done` comes after the write, also after one that failed', async () => {
    const { node } = debugged(setState('event=pwritev_done', 'state=1', 'new_state=2') + inject('event=pwritev', 'state=1', 'once=on') + inject('event=pwritev', 'state=2', 'errno=28'));
    expect(await outcomes(node.write(0, block))).toEqual(['EIO']);
    expect(await outcomes(node.write(0, block))).toEqual(['ENOSPC']);
  });
});

describe('limits', () => {
  test('align: unaligned requests are padded, zeroed and discarded by whole units', async () => {
    const { node, seen } = debugged([], { align: 4096 });
    await node.write(100, block);
    await node.read(5000, block);
    await node.discard(100, 8192);
    expect(seen).toEqual(['read 0+4096', 'write 0+4096', 'read 4096+4096', 'discard 4096+4096']);
    seen.length = 0;
    await node.writeZeroes(4000, 4192);
    expect(seen).toEqual(['read 0+4096', 'write 0+4096', 'write-zeroes 4096+4096']);
  });

  test('max-transfer, opt-write-zero, max-write-zero, opt-discard, max-discard', async () => {
    const { node, seen } = debugged([], { maxTransfer: 8192, optWriteZero: 1024, maxWriteZero: 4096, optDiscard: 512, maxDiscard: 2048 });
    await node.read(0, new Uint8Array(20_000));
    await node.writeZeroes(1024, 10_240);
    await node.discard(100, 5020);
    expect(seen).toEqual(['read 0+8192', 'read 8192+8192', 'read 16384+3616', 'write-zeroes 1024+4096', 'write-zeroes 5120+4096', 'write-zeroes 9216+2048',
      'discard 512+2048', 'discard 2560+2048', 'discard 4608+512']);
    await expect(node.submit(makeRequest('write-zeroes', 100, 100, null, RequestFlag.NO_FALLBACK))).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  });
});

describe('config files, as QEMU reads them', () => {
  test.each([
    ['[inject-error]\nevent = "xx"\n', 'invalid parameter value: xx'],
    ['[inject-error]\nstate="1"\n', "Invalid parameter 'state=\"1\"'"],
    ['[foo]\n', "There is no option group 'foo'"],
    ['event = "x"\n', 'no group defined'],
    ['[inject-error]\nevent = pwritev\n', 'invalid parameter value: '],
    ['[inject-error]\nfoo = "1"\n', "Invalid parameter 'foo'"],
    ['[inject-error]\nevent = "none"\nerrno = "x"\n', "Parameter 'errno' expects a number"],
    ['[inject-error]\nevent = "none"\nonce = "x"\n', "Parameter 'once' expects 'on' or 'off'"],
    ['[inject-error]\nevent = "none"\niotype = "x"\n', 'invalid parameter value: x'],
    ['[inject-error]\nerrno = "5"\n', 'Missing event name for rule'],
    ['[inject-error "a"]\nevent = "none"\n[inject-error "a"]\nevent = "none"\n', "Duplicate ID 'a' for inject-error"],
    ['   \n', 'parse error'],
  ])('%j is refused', (text, reason) => {
    expect(() => parseBlkdebugConfig(text)).toThrow(reason);
  });

  test('comments, ids and empty lines', () => {
    expect(parseBlkdebugConfig('# c\n\n[set-state "x"]\nevent = "pwritev"\nnew_state = "0x10"\n\n[inject-error]\n  event = "none"\nimmediately = "on"\n')).toEqual([
      { kind: 'inject-error', event: 'none', state: 0, errno: 5, offset: null, ioType: null, once: false, immediately: true },
      { kind: 'set-state', event: 'pwritev', state: 0, newState: 16 },
    ]);
  });

  test.each([
    ['blkdebug:a:b:c', { config: 'a', image: 'b:c' }], ['blkdebug::b', { config: null, image: 'b' }], ['b:c', { config: null, image: 'b:c' }],
  ])('the name %s', (name, expected) => {
    expect(parseBlkdebugName(name)).toEqual(expected);
  });
});
