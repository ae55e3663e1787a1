/** `faults-main.ts SETTING [N]`: every I/O of the work (or the N-th) fails once with EIO and once with ENOSPC. */
import { messageOf } from '../../src/base/errors.js';
import { FAULT_SETTINGS, FaultBase, runFault, type FaultSetting } from './fault-run.js';

/** Failed, failed in its answer only, and out of space. */
const KINDS = [{ errno: 'EIO', applied: false }, { errno: 'EIO', applied: true }, { errno: 'ENOSPC', applied: false }] as const;

interface Tally {
  hits: number;
  failed: number;
}

/** Returns false where the work has fewer I/Os. */
async function runAt(base: FaultBase, at: number, tally: Tally): Promise<boolean> {
  let reached = false;
  for (const kind of KINDS) {
    try {
      if (await runFault(base, { at, ...kind }) === null) continue;
      tally.hits++;
    } catch (error) {
      tally.failed++;
      console.error(messageOf(error));
    }
    reached = true;
  }
  return reached;
}

function settingNamed(name: string | undefined): FaultSetting {
  const setting = FAULT_SETTINGS.find((candidate) => candidate.name === name);
  if (setting === undefined) throw new Error(`give one of ${FAULT_SETTINGS.map((known) => known.name).join(', ')}`);
  return setting;
}

async function main(name: string | undefined, only: string | undefined): Promise<number> {
  const base = await FaultBase.make(settingNamed(name));
  const tally = { hits: 0, failed: 0 };
  let at = Number(only ?? 1);
  while (await runAt(base, at, tally) && only === undefined) at++;
  console.log(`${base.setting.name}: ${tally.hits} faults, the last in I/O ${at}, ${tally.failed} failed`);
  return tally.failed === 0 && (only !== undefined || tally.hits > 100) ? 0 : 1;
}

process.exitCode = await main(process.argv[2], process.argv[3]);
