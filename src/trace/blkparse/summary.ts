/** What blkparse prints at the end. */
import { majorOf, minorOf } from '../record.js';
import type { CpuState, DeviceState } from './devices.js';
import type { ProcessTable } from './processes.js';
import { newStats, statsText, waitsText } from './stats.js';

/** blkparse's buffers: of a name, of a title, of a name where the title stands. */
const [NAME_CHARS, TITLE_CHARS, LINE_CHARS] = [31, 46, 47];

export function processSummary(processes: ProcessTable): string {
  const blocks = processes.sorted().map(({ process, stats, waits, moreThanOne }) => {
    const name = Buffer.from(process.comm).toString('latin1');
    return statsText(`${name} (${process.pid}${moreThanOne ? ', ...' : ''})`, stats, null) + waitsText(waits);
  });
  return `${blocks.join('')}\n`;
}

export function deviceSummary(devices: readonly DeviceState[]): string {
  return devices.map((device) => section(device)).join('\n');
}

function section(device: DeviceState): string {
  const name = device.name ?? `${majorOf(device.device)},${minorOf(device.device)}`;
  const short = name.slice(0, NAME_CHARS);
  const cpus = [...device.cpus.values()].filter(({ records }) => records > 0).sort((a, b) => a.cpu - b.cpu);
  const total = newStats();
  for (const { stats } of cpus) for (let index = 0; index < total.length; index++) total[index]! += stats[index]!;
  const blocks = cpus.map(({ cpu, stats }) => statsText(`CPU${cpu} (${short}):`.slice(0, TITLE_CHARS), stats, device.maxDepth));
  if (cpus.length > 1) blocks.push(`\n${statsText(`Total (${short}):`.slice(0, TITLE_CHARS), total, null)}`);
  return `${blocks.join('')}\n${throughput(device, total)}Events (${name.slice(0, LINE_CHARS)}): ${device.events} entries\n${skips(device, cpus)}`;
}

function throughput(device: DeviceState, total: Float64Array): string {
  // Count.COMPLETED_KB and COMPLETED_B: blkparse adds bytes to thousandths of KiB
  const milliseconds = BigInt.asUintN(64, BigInt(device.lastTime) - BigInt(device.firstTime)) / 1_000_000n;
  const rate = (write: number): bigint => (milliseconds === 0n ? 0n : (1000n * BigInt(total[14 + write]!) + BigInt(total[22 + write]!)) / milliseconds);
  return `Throughput (R/W): ${rate(0)}KiB/s / ${rate(1)}KiB/s\n`;
}

function skips(device: DeviceState, cpus: readonly CpuState[]): string {
  const all = cpus.flatMap((cpu) => cpu.skips);
  const missing = all.reduce((sum, { start, end }) => sum + end - start + 1, 0);
  const ratio = all.length === 0 && device.events === 0 ? 0 : 100 * (missing / (device.events + missing));
  return `Skips: ${all.length} forward (${missing} - ${ratio.toFixed(1).padStart(5)}%)\n`;
}
