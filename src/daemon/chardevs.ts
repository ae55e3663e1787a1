/** The character devices of one process, by id. */
import { BlockError } from '../base/errors.js';
import { GlibKeys } from '../qobject/glib-order.js';
import { openChardev, type Chardev, type ChardevConfig } from './chardev.js';

export class Chardevs {
  readonly #byId = new Map<string, Chardev>();

  find(id: string): Chardev | undefined { return this.#byId.get(id); }

  get(id: string): Chardev {
    const found = this.#byId.get(id);
    if (found === undefined) throw new BlockError('NOT_FOUND', `Chardev '${id}' not found`);
    return found;
  }

  /** As QEMU lists them: children of a container, in the order of its hash table. */
  inOrder(): Chardev[] {
    return [...new GlibKeys(['type', ...this.#byId.keys()])].map((id) => this.#byId.get(id)).filter((chardev) => chardev !== undefined);
  }

  async add(id: string, config: ChardevConfig): Promise<Chardev> {
    if (this.#byId.has(id)) {
      throw new BlockError('EXISTS', config.kind === 'socket' ? 'duplicate yank instance' : `attempt to add duplicate property '${id}' to object (type 'container')`);
    }
    const chardev = await openChardev(id, config);
    this.#byId.set(id, chardev);
    return chardev;
  }

  /** The old one stays where the new one cannot be opened. */
  async replace(id: string, config: ChardevConfig): Promise<void> {
    const old = this.get(id);
    this.#byId.set(id, await openChardev(id, config));
    old.close();
  }

  remove(id: string): void {
    const chardev = this.get(id);
    if (chardev.frontend !== null) throw new BlockError('BUSY', `Chardev '${id}' is busy`);
    this.#byId.delete(id);
    chardev.close();
  }

  close(): void {
    for (const chardev of this.#byId.values()) chardev.close();
    this.#byId.clear();
  }
}
