/**
 * One storage daemon: the graph of its nodes, its exports, jobs, character devices and monitors, and the QMP commands
 * over all of them. It neither prints nor ends the process.
 */
import type { Duplex } from 'node:stream';
import { systemClock, type Clock } from '../base/clock.js';
import { BlockError, messageOf } from '../base/errors.js';
import { BlockGraph } from '../block/graph.js';
import type { BlockdevContext } from '../image/blockdev.js';
import type { NodeEvent } from '../image/drivers.js';
import type { NbdServerOptions } from '../nbd/server.js';
import { QmpServer, type CommandTable, type QmpVersion } from '../qmp/server.js';
import { BlockJobs } from '../job/block-job.js';
import { JobTable } from '../job/job-table.js';
import type { JobJournal } from '../job/journal/journal.js';
import type { JsonDict } from '../qobject/value.js';
import { ObjectModel } from '../qom/object-model.js';
import { Chardevs } from './chardevs.js';
import { blockCommands } from './commands-block.js';
import { bitmapCommands } from './commands-bitmap.js';
import { chardevCommands } from './commands-chardev.js';
import { commitCommands } from './commands-commit.js';
import { driveCommands } from './commands-drive.js';
import { exportCommands } from './commands-export.js';
import { jobCommands } from './commands-job.js';
import { drainAtRelease, pauseJobs } from './job-pauses.js';
import { LiveSnapshots } from './live-snapshots.js';
import { mirrorCommands } from './commands-mirror.js';
import { nodeCommands } from './commands-node.js';
import { queryCommands } from './commands-query.js';
import { snapshotCommands } from './commands-snapshot.js';
import { snapshotJobCommands } from './commands-snapshot-job.js';
import { streamCommands } from './commands-stream.js';
import { BlockExports } from './exports.js';
import { isWorthTelling, SILENT, tellable, type DaemonLog } from './log.js';
import { DaemonTrace } from './trace.js';
import { transactionCommands } from './transaction.js';
import { WriteThresholds } from './write-threshold.js';

export interface StorageDaemonOptions {
  readonly version: QmpVersion;
  readonly clock?: Clock | undefined;
  readonly nbd?: NbdServerOptions | undefined;
  readonly log?: DaemonLog | undefined;
  /** Hears the lines that qemu-storage-daemon prints, on standard output and standard error. */
  readonly say?: ((where: 'output' | 'errors', line: string) => void) | undefined;
  /** What character devices of type `stdio` are to speak through; throws where it is taken. */
  readonly stdio?: (() => Duplex) | undefined;
}

export class StorageDaemon {
  readonly graph = new BlockGraph();
  readonly chardevs: Chardevs;
  readonly exports: BlockExports;
  readonly jobs: JobTable;
  readonly blockJobs: BlockJobs;
  readonly thresholds: WriteThresholds;
  readonly clock: Clock;
  readonly objects: ObjectModel;
  readonly liveSnapshots = new LiveSnapshots(this);
  readonly trace = new DaemonTrace(this);
  /** What opening a node needs of the daemon. */
  readonly blockdevContext: BlockdevContext;
  readonly qmp: QmpServer;
  /** Resolves when a client said `quit`, or `quit` was called. */
  readonly ended: Promise<void>;
  readonly stdio: () => Duplex;
  readonly say: (where: 'output' | 'errors', line: string) => void;
  /** Where jobs are kept that are to survive this process. */
  journal: JobJournal | null = null;
  readonly #log: DaemonLog;
  #end: () => void = () => undefined;
  #closing: Promise<void> | null = null;

  constructor({ version, clock = systemClock, nbd, log = SILENT, stdio, say = () => undefined }: StorageDaemonOptions) {
    this.say = say;
    this.#log = log;
    this.stdio = stdio ?? (() => { throw new BlockError('NOT_SUPPORTED', "character devices of type 'stdio' are not available"); });
    this.clock = clock;
    this.objects = new ObjectModel(clock);
    this.chardevs = new Chardevs(this.objects);
    this.blockdevContext = {
      tlsCredentials: (id) => this.objects.tlsCredentials(id),
      objectType: (id) => this.objects.typeOf(id),
      throttleGroup: (name) => this.objects.throttleGroup(name),
      onEvent: (event) => this.#nodeEvent(event),
    };
    this.exports = new BlockExports(this.graph, {
      detaching: (node) => drainAtRelease(this.blockJobs, node),
      deleted: (id) => this.emit('BLOCK_EXPORT_DELETED', { id }),
    }, nbd, log);
    this.jobs = new JobTable(({ id, status }) => this.emit('JOB_STATUS_CHANGE', { id, status }));
    this.blockJobs = new BlockJobs(this.jobs, { emit: (event, data) => this.emit(event, data) }, clock);
    this.thresholds = new WriteThresholds((nodeName, exceeded, threshold) => this.emit('BLOCK_WRITE_THRESHOLD', {
      'node-name': nodeName, 'amount-exceeded': exceeded, 'write-threshold': threshold,
    }));
    this.ended = new Promise((resolve) => { this.#end = resolve; });
    this.qmp = new QmpServer({ commands: this.#logged(this.#commands()), version, clock });
  }

  /** As in QEMU a node whose close fails is gone nevertheless, and the command has done what it was asked for: who reads the errors hears of what is lost. */
  async removeNode(nodeName: string): Promise<void> {
    const node = this.graph.find(nodeName);
    try {
      await this.graph.remove(nodeName);
    } catch (error) {
      if (node === undefined || this.graph.find(nodeName) === node) throw error;
      const failed = `Failed to close node '${nodeName}': ${messageOf(error)}`;
      this.say('errors', failed);
      this.#log.error({ node: nodeName }, failed);
    }
  }

  emit(event: string, data: JsonDict): void {
    if (event.startsWith('QUORUM_')) this.#log.warn({ event, ...data }, 'quorum');
    this.qmp.emit(event, data);
  }

  #nodeEvent({ event, data }: NodeEvent): void {
    if (event === 'BLOCK_IMAGE_CORRUPTED') {
      const [found, more] = data.fatal ? ['Marking image as corrupt', 'corruption'] : ['Image is corrupt', 'non-fatal corruption'];
      this.say('errors', `qcow2: ${found}: ${data.msg}; further ${more} events will be suppressed`);
      this.#log.error({ event, ...data }, 'corrupt image');
    }
    this.emit(event, data);
  }

  tellTraceFailure(error: BlockError): void {
    this.#log.warn({ error: error.message }, 'trace');
  }

  quit(): void {
    this.#end();
  }

  hasIothread(id: string): boolean {
    return this.objects.has(id, 'iothread');
  }

  /** Opens a QMP monitor on a character device: each of its clients is greeted and served. */
  addMonitor(chardevId: string, { pretty = false, mode = 'control' }: { readonly pretty?: boolean; readonly mode?: string } = {}): void {
    const chardev = this.chardevs.find(chardevId);
    if (chardev === undefined) throw new BlockError('NOT_FOUND', `chardev "${chardevId}" not found`);
    if (mode === 'readline') throw new BlockError('NOT_SUPPORTED', 'Only QMP is supported');
    const shared = this.chardevs.isMux(chardevId) && chardev.frontend === null;
    if (this.chardevs.isBusy(chardevId) && !shared) throw new BlockError('BUSY', `Device '${chardevId}' is in use`);
    chardev.setFrontend((stream) => {
      const session = this.qmp.attach(stream, { pretty });
      this.#log.info({ monitor: chardevId }, 'monitor connected');
      void session.ended.then(() => this.#log.info({ monitor: chardevId }, 'monitor gone'));
    });
  }

  /** Ends exports, lets clients read their last replies, and closes every node: all that was written is on its way to the disk. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const errors: unknown[] = [];
    const step = async (work: Promise<void>): Promise<void> => { await work.catch((error: unknown) => errors.push(error)); };
    if (this.journal !== null) {
      // the jobs that it keeps hear of all that is written before they end
      await step(this.exports.close());
      this.journal.suspend();
    }
    await step(this.jobs.close());
    await step(this.liveSnapshots.close());
    await step(this.exports.close());
    await step(this.graph.closeAll());
    await step(this.trace.close());
    if (this.journal !== null) await step(this.journal.close());
    await step(Promise.race([this.qmp.close(), this.clock.sleep(MONITOR_GRACE_MS)]));
    this.chardevs.close();
    if (errors.length > 0) throw errors[0];
  }

  /** Those that change something are told in the log. */
  #logged(commands: CommandTable): CommandTable {
    return Object.fromEntries(Object.entries(commands).map(([name, command]) => [name, !isWorthTelling(name) ? command : async (args, session) => {
      const told = { command: name, arguments: tellable(name, args) };
      try {
        const reply = await command(args, session);
        this.#log.debug(told, 'command');
        return reply;
      } catch (error) {
        this.#log.debug({ ...told, error: messageOf(error) }, 'command failed');
        throw error;
      }
    }]));
  }

  #commands(): CommandTable {
    return {
      quit: async () => {
        try {
          await this.exports.close();
          await pauseJobs(this.blockJobs, 'all');
          await this.jobs.dismissEnded();
        } finally {
          setImmediate(() => this.quit());
        }
      },
      ...blockCommands(this),
      ...queryCommands(this),
      ...nodeCommands(this),
      ...bitmapCommands(this),
      ...snapshotCommands(this),
      ...snapshotJobCommands(this),
      ...this.liveSnapshots.commands(),
      ...transactionCommands(this),
      ...jobCommands(this),
      ...mirrorCommands(this),
      ...driveCommands(this),
      ...commitCommands(this),
      ...streamCommands(this),
      ...exportCommands(this),
      ...chardevCommands(this),
      ...this.objects.commands(),
      ...this.trace.commands(),
    };
  }
}

/** A monitor that does not read its last replies keeps nobody. */
const MONITOR_GRACE_MS = 1000;
