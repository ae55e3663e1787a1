/** QMP to a storage daemon, for commands: refusals become errors that name the daemon. */
import { BlockError, QmpClient, QmpError } from '../src/index.js';

export type Reply = Readonly<Record<string, unknown>>;

/** A member as text; nothing where it is not there. */
export function textOf(reply: Reply | null, name: string): string | undefined {
  const value = reply?.[name];
  return value === undefined || typeof value === 'string' ? value : JSON.stringify(value);
}

export class DaemonClient {
  readonly qmp: QmpClient;

  private constructor(qmp: QmpClient) {
    this.qmp = qmp;
  }

  static async connect(path: string, signal?: AbortSignal): Promise<DaemonClient> {
    return new DaemonClient(await QmpClient.connect(path, { signal }));
  }

  async execute<T = Reply>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    try {
      return await this.qmp.execute(command, args) as T;
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      throw new BlockError('PEER', `the daemon at '${this.qmp.path}' refused '${command}': ${error.description}`, { cause: error });
    }
  }

  /** The block job of this id as `query-block-jobs` tells it; null where there is none. */
  async blockJob(id: string): Promise<Reply | null> {
    return (await this.execute<Reply[]>('query-block-jobs')).find(({ device }) => device === id) ?? null;
  }

  close(): void {
    this.qmp.close();
  }
}
