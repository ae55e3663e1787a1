import type { Finding } from '../../finding.js';
import { Keyed, MAX_DEVICES } from '../keyed.js';
import type { PairingListener } from '../pairing-listener.js';
import type { RuleContext } from './rule.js';

class Device {
  requests = 0;
  children = 0;
  parent = -1;
}

/** Which device works for which: what a layer does wrong, the one below does too, and it is told once. */
export class Ancestry implements PairingListener {
  private readonly devices = new Keyed(MAX_DEVICES, () => new Device());

  constructor(private readonly context: RuleContext) {}

  requestOpened(slot: number): void {
    const { ios } = this.context;
    const device = this.devices.get(ios.device[slot]!);
    device.requests++;
    if (ios.parent[slot] === -1) return;
    device.children++;
    device.parent = ios.parentDevice[slot]!;
  }

  /** Without those that another finding of the same rule explains. */
  withoutEchoes(findings: readonly Finding[]): Finding[] {
    const found = new Set(findings.map(({ rule, device }) => `${rule} ${device}`));
    return findings.filter(({ rule, device }) => {
      const parent = this.parentOf(device);
      return parent === -1 || !found.has(`${rule} ${parent}`);
    });
  }

  private parentOf(device: number): number {
    const known = this.devices.all.get(device);
    return known === undefined || known.children < known.requests / 2 ? -1 : known.parent;
  }
}
