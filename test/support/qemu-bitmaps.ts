/** QEMU's opinion of the bitmaps in an image, from a storage daemon that opens it. */
import { runOk } from './run.js';

export interface QemuBitmap {
  readonly name: string;
  readonly recording: boolean;
  readonly persistent: boolean;
  readonly busy: boolean;
  readonly inconsistent?: boolean;
  readonly count: number;
  readonly granularity: number;
}

type Reply = { readonly return: unknown } | { readonly error: { readonly class: string; readonly desc: string } };

/** Runs QMP commands on an image, as node `disk`, and closes it in order. Returns the replies; errors are replies too. */
export async function qmpOn(path: string, commands: readonly (readonly [name: string, args?: object])[], readOnly = false): Promise<Reply[]> {
  const blockdev = JSON.stringify({ driver: 'qcow2', 'node-name': 'disk', 'read-only': readOnly, file: { driver: 'file', filename: path } });
  const lines = [['qmp_capabilities'] as const, ...commands, ['quit'] as const].map(([execute, args]) => JSON.stringify({ execute, ...(args === undefined ? {} : { arguments: args }) }));
  const stdout = await runOk('qemu-storage-daemon', ['--blockdev', blockdev, '--chardev', 'stdio,id=m', '--monitor', 'm'], { input: `${lines.join('\n')}\n` });
  const messages = stdout.trim().split('\n').map((line) => JSON.parse(line) as object);
  return (messages.filter((message) => 'return' in message || 'error' in message) as Reply[]).slice(1, 1 + commands.length);
}

export async function qemuBitmaps(path: string): Promise<readonly QemuBitmap[]> {
  const [reply] = await qmpOn(path, [['query-named-block-nodes', {}]], true);
  const nodes = (reply as { return: readonly { 'node-name': string; 'dirty-bitmaps'?: readonly QemuBitmap[] }[] }).return;
  return nodes.find((node) => node['node-name'] === 'disk')!['dirty-bitmaps'] ?? [];
}

/** QEMU's checksum of a bitmap's bits. */
export async function qemuSha256(path: string, name: string): Promise<string> {
  const [reply] = await qmpOn(path, [['x-debug-block-dirty-bitmap-sha256', { node: 'disk', name }]], true);
  return (reply as { return: { sha256: string } }).return.sha256;
}
