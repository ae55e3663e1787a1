/** block-commit of an image that is written: a mirror into its base, which takes its place when the job is told to complete. */
import type { BlockGraph } from '../block/graph.js';
import type { BlockNode } from '../block/node.js';
import { setReadOnly } from '../image/read-only.js';
import type { BlockJobs, OnError } from './block-job.js';
import { startMirror, type Mirror } from './mirror/mirror.js';

export interface ActiveCommitOptions {
  readonly jobId: string;
  /** What users write to; at the end they write to the base. */
  readonly top: BlockNode;
  /** Below `top`. It grows where it is smaller. */
  readonly base: BlockNode;
  /** Bytes per second; 0 = no limit. */
  readonly speed?: number | undefined;
  readonly onError?: OnError | undefined;
  readonly filterNodeName?: string | undefined;
  /** Does not wait to be completed. */
  readonly autoComplete?: boolean | undefined;
  readonly autoFinalize?: boolean | undefined;
  readonly autoDismiss?: boolean | undefined;
}

/** Begins the job; refused as QEMU refuses it. It never completes unasked, unless `autoComplete`. A read-only base is writable from then on, however the job ends, as with QEMU. */
export async function startActiveCommit(graph: BlockGraph, jobs: BlockJobs, options: ActiveCommitOptions): Promise<Mirror> {
  const { top, base, onError, ...same } = options;
  const wasReadOnly = base.readOnly;
  const restore = async (): Promise<void> => { if (wasReadOnly && !base.closing) await setReadOnly(graph, base, true); };
  if (wasReadOnly) await setReadOnly(graph, base, false);
  try {
    return await startMirror(graph, jobs, {
      ...same, kind: 'commit', source: top, target: base, sync: 'full', copyMode: 'background', onSourceError: onError, onTargetError: onError,
    });
  } catch (error) {
    await restore();
    throw error;
  }
}
