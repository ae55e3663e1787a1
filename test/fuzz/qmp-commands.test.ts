/** Every command of the storage daemon with arguments made up from its own schema: each is answered, none brings it down. FUZZ_SEEDS=N for more. */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { afterEach, expect, test } from '@jest/globals';
import { createImage, QmpClient, Random } from '../../src/index.js';
import { MiB, waitFor } from '../support/cli.js';
import { kill, start, storageDaemonLauncher } from '../support/run.js';
import { useTmp } from '../support/tmp.js';

const tmp = useTmp();
const SEEDS = Number(process.env['FUZZ_SEEDS'] ?? 3);
const COMMANDS = 400;
const MAX_DEPTH = 6;
/** One ends the daemon; a state that was announced and never comes is waited for, half a minute. */
const EXCLUDED = new Set(['quit', 'x-quiesce-vm-state-receive', 'x-quiesce-trace-start']);
/** Members that most commands can do nothing without, though each by itself may be left out. */
const NAMES = new Set(['node-name', 'device', 'id', 'name']);
const daemons: ChildProcess[] = [];
afterEach(async () => {
  for (const child of daemons.splice(0)) await kill(child);
});

interface Member { readonly name: string; readonly type: string; readonly default?: null }
interface Info {
  readonly name: string;
  readonly 'meta-type': 'command' | 'event' | 'builtin' | 'enum' | 'array' | 'object' | 'alternate';
  readonly 'json-type'?: string;
  readonly 'arg-type'?: string;
  readonly 'element-type'?: string;
  readonly values?: readonly string[];
  readonly tag?: string;
  readonly members?: readonly Member[];
  readonly variants?: readonly { readonly case: string; readonly type: string }[];
}

/** Makes values of a type; now and then one of another. Names come from a small pool, so that commands meet what others made. */
class Arguments {
  readonly #types: ReadonlyMap<string, Info>;
  readonly #random: Random;
  readonly #strings: readonly string[];

  constructor(types: ReadonlyMap<string, Info>, random: Random, strings: readonly string[]) {
    this.#types = types;
    this.#random = random;
    this.#strings = strings;
  }

  value(type: string, depth = 0): unknown {
    const random = this.#random;
    const info = this.#types.get(type)!;
    if (random.chance(0.02)) return random.pick([null, true, '', 0, -1, [], {}, 1.5, 'x'.repeat(5000)]);
    switch (info['meta-type']) {
      case 'enum':
        return random.pick(info.values!);
      case 'array':
        return depth >= MAX_DEPTH ? [] : Array.from({ length: random.below(3) }, () => this.value(info['element-type']!, depth + 1));
      case 'alternate':
        return this.value(random.pick(info.members!).type, depth);
      case 'object':
        return this.#object(info, depth);
      default:
        return this.#builtin(info['json-type']!);
    }
  }

  #object({ members = [], variants = [], tag }: Info, depth: number): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    const often = (name: string): boolean => depth < MAX_DEPTH && this.#random.chance(NAMES.has(name) ? 0.7 : 0.15);
    for (const { name, type, default: optional } of members) {
      if (optional === undefined || often(name)) object[name] = this.value(type, depth + 1);
    }
    const variant = variants.find((one) => one.case === object[tag ?? '']);
    if (variant !== undefined) Object.assign(object, this.#object(this.#types.get(variant.type)!, depth));
    // a socket that waits for its first client holds up the monitor, here as in QEMU
    if (members.some(({ name }) => name === 'wait')) object['wait'] = false;
    return object;
  }

  #builtin(type: string): unknown {
    const random = this.#random;
    switch (type) {
      case 'boolean':
        return random.chance(0.5);
      case 'int':
        return random.pick([0, 1, 2, 512, 4096, 65_536, MiB, -1, 2 ** 31, 2 ** 53, random.below(10_000)]);
      case 'number':
        return random.next32() / 7;
      case 'null':
        return null;
      default:
        return random.pick(this.#strings);
    }
  }
}

test('whatever is asked, there is an answer', async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const folder = tmp(`seed${seed}`);
    mkdirSync(folder);
    for (const name of ['a', 'b']) await createImage(`${folder}/${name}.qcow2`, { format: 'qcow2', size: MiB });
    const child = start(storageDaemonLauncher, ['--chardev', 'socket,id=c,path=qmp,server=on,wait=off', '--monitor', 'c',
      '--blockdev', 'driver=qcow2,node-name=n0,file.driver=file,file.node-name=n1,file.filename=a.qcow2'], { cwd: folder });
    daemons.push(child);
    let said = '';
    child.stderr!.on('data', (data: Buffer) => { said += data.toString(); });
    let qmp: QmpClient | null = null;
    await waitFor('the monitor answers', async () => (qmp = await QmpClient.connect(`${folder}/qmp`).catch(() => null)) !== null);
    const types = new Map((await qmp!.execute('query-qmp-schema') as Info[]).map((info) => [info.name, info]));
    const all = [...types.values()].filter((info) => info['meta-type'] === 'command' && !EXCLUDED.has(info.name));
    const [queries, commands] = [all.filter(({ name }) => name.startsWith('query-')), all.filter(({ name }) => !name.startsWith('query-'))];
    const random = new Random(seed);
    const pool = new Arguments(types, random, ['n0', 'n1', 'n2', 'n0', 'n1', 'e0', 'b0', 'o0', 'b0', 'a.qcow2', 'b.qcow2', 's.sock', 'json:{}', '', '#block000', '/objects', 'x:y', 'é', '0', '1M', `${folder}/a.qcow2`]);
    for (let count = 0; count < COMMANDS; count++) {
      const command = random.pick(random.chance(0.1) ? queries : commands);
      const args = pool.value(command['arg-type']!) as never;
      const outcome = await qmp!.execute(command.name, args, { timeoutMs: 20_000 }).then(() => 'fine', String);
      const broken = /did not send|is lost|closed by its peer|undefined|not a function|Cannot read prop|Cannot destructure|assert|internal error|not iterable/i.test(outcome.replaceAll(/'[^']*'/g, ''));
      if (broken || child.exitCode !== null) throw new Error(`seed ${seed}, ${command.name} ${JSON.stringify(args)?.slice(0, 2000)}: ${outcome} ${said}`);
    }
    expect(await qmp!.execute('query-version')).toBeTruthy();
    qmp!.close();
    await kill(child, 'SIGTERM');
    expect([seed, child.signalCode]).toEqual([seed, null]);
  }
}, 600_000);
