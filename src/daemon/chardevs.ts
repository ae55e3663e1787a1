/** The character devices of one process, by id. */
import { BlockError } from '../base/errors.js';
import { GlibKeys } from '../qobject/glib-order.js';
import type { ShownProperties } from '../qom/object-model.js';
import { openChardev, type Chardev, type ChardevConfig } from './chardev.js';
import { MuxChardev } from './chardev-stream.js';

/** Where clients of QOM see them. */
interface ChardevTree {
  show(parent: 'chardevs', id: string, type: string, properties: ShownProperties): void;
  hide(parent: 'chardevs', id: string): void;
}

export class Chardevs {
  readonly #byId = new Map<string, Chardev>();
  readonly #order = new GlibKeys();
  /** Those that a mux stands on, and the muxes themselves. */
  readonly #claimed = new Set<string>();
  readonly #tree: ChardevTree | null;

  constructor(tree: ChardevTree | null = null) {
    this.#tree = tree;
  }

  find(id: string): Chardev | undefined { return this.#byId.get(id); }

  get(id: string): Chardev {
    const found = this.#byId.get(id);
    if (found === undefined) throw new BlockError('NOT_FOUND', `Chardev '${id}' not found`);
    return found;
  }

  /** As QEMU lists them: children of a container, in the order of its hash table. */
  inOrder(): Chardev[] {
    return [...this.#order].reverse().map((id) => this.#byId.get(id)).filter((chardev) => chardev !== undefined);
  }

  async add(id: string, config: ChardevConfig): Promise<Chardev> {
    if (this.#byId.has(id)) {
      throw new BlockError('EXISTS', config.kind === 'socket' ? 'duplicate yank instance' : `attempt to add duplicate property '${id}' to object (type 'container')`);
    }
    const chardev = await openChardev(id, config, this.#claimBase(id, config));
    this.#byId.set(id, chardev);
    this.#order.add(id);
    this.#show(id, config);
    return chardev;
  }

  /** Whether it has a user. QEMU never lets a mux go. */
  isBusy(id: string): boolean {
    return this.#claimed.has(id) || this.find(id)?.frontend !== null;
  }

  isMux(id: string): boolean {
    return this.find(id) instanceof MuxChardev;
  }

  /** The old one stays where the new one cannot be opened. */
  async replace(id: string, config: ChardevConfig): Promise<Chardev> {
    const old = this.get(id);
    const chardev = await openChardev(id, config, this.#claimBase(id, config));
    this.#byId.set(id, chardev);
    this.#tree?.hide('chardevs', id);
    this.#show(id, config);
    old.close();
    return chardev;
  }

  #claimBase(id: string, config: ChardevConfig): Chardev | null {
    if (config.kind !== 'mux') return null;
    const base = this.find(config.base);
    if (base === undefined) throw new BlockError('NOT_FOUND', `mux: base chardev ${config.base} not found`);
    // several users share one: other muxes too
    if (!(base instanceof MuxChardev) && this.isBusy(config.base)) throw new BlockError('BUSY', `Device '${config.base}' is in use`);
    this.#claimed.add(config.base).add(id);
    return base;
  }

  remove(id: string): void {
    const chardev = this.get(id);
    if (this.isBusy(id)) throw new BlockError('BUSY', `Chardev '${id}' is busy`);
    this.#byId.delete(id);
    this.#order.delete(id);
    this.#tree?.hide('chardevs', id);
    chardev.close();
  }

  #show(id: string, config: ChardevConfig): void {
    const isSocket = config.kind === 'socket';
    this.#tree?.show('chardevs', id, `chardev-${config.kind}`, isSocket ? {
      connected: () => this.#byId.get(id)?.filename().startsWith('disconnected:') === false,
      addr: () => ({ ...config.address }),
    } : {});
  }

  close(): void {
    for (const chardev of this.#byId.values()) chardev.close();
    this.#byId.clear();
  }
}
