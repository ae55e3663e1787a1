/** Arguments that a command must refuse before it runs: made from the schema with faults put in, the same to both. */
import { expect, test } from '@jest/globals';
import { printJson, QmpServer, Random, schema, systemClock, visit, type Json, type JsonDict } from '../../src/index.js';
import { peers } from '../support/peers.js';
import { useTmp } from '../support/tmp.js';
import { negotiated, ourTranscript, theirTranscript } from '../support/transcript.js';

const tmp = useTmp();

/** Random values of the types of the schema, of which some are not. */
class Generator {
  readonly #random: Random;
  readonly #faultChance: number;

  constructor(seed: number, faultChance: number) {
    this.#random = new Random(seed);
    this.#faultChance = faultChance;
  }

  value(type: string, depth: number): Json {
    const random = this.#random;
    if (random.chance(this.#faultChance)) return this.#odd(depth);
    if (type.startsWith('[')) return Array.from({ length: random.below(3) }, () => this.value(type.slice(1, -1), depth + 1));
    const named = schema().type(type);
    if (named?.kind === 'enum') return random.pick(named.values).name;
    if (named?.kind === 'alternate') return this.value(depth > 3 ? 'str' : random.pick(named.members).type, depth);
    if (named?.kind === 'object') return this.#object(type, depth);
    switch (type) {
      case 'bool': return random.chance(0.5);
      case 'null': return null;
      case 'str': case 'value': return '/nonexistent';
      default: return random.pick<Json>([0, 1, 512, -1, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32, 2n ** 63n - 1n, 2n ** 63n, -(2n ** 63n), 2n ** 64n - 1n]);
    }
  }

  #object(type: string, depth: number): JsonDict {
    const random = this.#random;
    const result: Record<string, Json> = {};
    this.#members(type, depth, result);
    const named = schema().type(type);
    const tag = named?.kind === 'object' && named.tag !== null ? result[named.tag] : undefined;
    const variant = named?.kind === 'object' ? named.variants.find(({ value, hidden }) => value === tag && !hidden) : undefined;
    if (variant !== undefined) this.#members(variant.type, depth, result);
    while (random.chance(this.#faultChance)) result[random.pick(['foo', 'bar', 'node', 'x-y', 'é', '', 'filenam', 'Driver', 'host.port'])] = 1;
    return result;
  }

  #members(type: string, depth: number, result: Record<string, Json>): void {
    for (const { name, type: member, optional } of schema().members(type)) {
      if (!this.#random.chance(optional ? 0.7 : this.#faultChance / 2)) result[name] = this.value(member, depth + 1);
    }
  }

  #odd(depth: number): Json {
    return this.#random.pick<() => Json>([() => null, () => true, () => 1.5, () => 2n ** 64n * 2n, () => 'odd', () => '', () => [], () => [1], () => ({}),
      () => ({ type: 'inet' }), () => 1e300, () => this.value('BlockdevOptions', depth + 3)])();
  }
}

/** Refused by ours: lines of JSON. */
function refused(command: string, count: number, seed: number): string[] {
  const generator = new Generator(seed, 0.08);
  const lines: string[] = [];
  for (let attempt = 0; attempt < count * 20 && lines.length < count; attempt++) {
    const args = generator.value(schema().command(command)!.argument!, 0);
    if (typeof args !== 'object' || args === null || Array.isArray(args)) continue;
    try {
      visit(schema(), schema().command(command)!.argument!, args, 'json');
    } catch {
      lines.push(printJson({ execute: command, arguments: args }));
    }
  }
  return lines;
}

const commands = [
  'block_resize', 'block-commit', 'blockdev-backup', 'blockdev-mirror', 'block-dirty-bitmap-add', 'block-dirty-bitmap-merge', 'blockdev-add', 'blockdev-reopen',
  'blockdev-create', 'x-blockdev-amend', 'x-blockdev-set-iothread', 'block-export-add', 'nbd-server-start', 'object-add', 'transaction', 'chardev-add',
  'qmp_capabilities', 'qom-set', 'query-blockstats',
];

peers('qemu-storage-daemon')('as qemu-storage-daemon', () => {
  test.each([1, 2])('arguments are refused with its words, in its order (seed %i)', async (seed) => {
    const lines = commands.flatMap((command, index) => refused(command, command === 'blockdev-add' || command === 'object-add' ? 150 : 40, seed * 1000 + index));
    expect(lines.length).toBeGreaterThan(700);
    const transcript = negotiated(...lines);
    const nothing = (): void => undefined;
    const table = Object.fromEntries(commands.filter((name) => name !== 'qmp_capabilities').map((name) => [name, nothing]));
    const server = new QmpServer({ commands: table, version: { major: 1, minor: 0, micro: 0, package: 'x' }, clock: systemClock });
    const theirs = await theirTranscript(transcript, tmp('theirs'));
    const ours = await ourTranscript(transcript, tmp('ours'), server);
    const told = (replies: readonly string[]): string[] => replies.slice(2).map((reply, index) => `${lines[index]} ${reply}`);
    expect(told(ours)).toEqual(told(theirs));
  });
});
