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

  /** What `query-jobs` tells, and of block jobs also what `query-block-jobs` does. */
  async jobs(): Promise<Reply[]> {
    const blockJobs = await this.execute<Reply[]>('query-block-jobs');
    const jobs = await this.execute<Reply[]>('query-jobs');
    return jobs.map((job) => Object.assign({}, blockJobs.find(({ device }) => device === job['id']), job));
  }

  /** Throws NOT_FOUND. */
  async job(id: string): Promise<Reply> {
    const found = (await this.jobs()).find((job) => job['id'] === id);
    if (found === undefined) throw new BlockError('NOT_FOUND', `there is no job '${id}' at '${this.qmp.path}'`);
    return found;
  }

  close(): void {
    this.qmp.close();
  }
}
