/** Trace events of guests' requests, for the driver. */
import { acting, actFor, type BlockRequest } from '../../block/request.js';
import { errnoOf } from '../../base/errors.js';
import { events } from '../../trace/events.js';

/** What it makes of the request is told as the request's. */
export async function logged(request: BlockRequest, work: () => Promise<void>): Promise<void> {
  const { op, id, offset, bytes } = request;
  if (op === 'write') events.log?.emit('qcow2_writev_start_req', id, offset, bytes);
  else if (op === 'write-zeroes') events.log?.emit('qcow2_pwrite_zeroes_start_req', id, offset, bytes);
  let result = '0';
  try {
    await actFor(request, work);
  } catch (error) {
    result = `-${errnoOf(error) ?? 'EIO'}`;
    throw error;
  } finally {
    if (op === 'write') events.log?.emit('qcow2_writev_done_req', id, result);
  }
}

/** A part of a write for which all clusters are there. */
export function tellInPlace(offset: number, hostOffset: number, bytes: number): void {
  const id = acting()?.id;
  const { log } = events;
  log?.emit('qcow2_writev_start_part', id);
  log?.emit('qcow2_alloc_clusters_offset', id, offset, bytes);
  log?.emit('qcow2_handle_copied', id, offset, 0, bytes);
  log?.emit('qcow2_writev_data', id, hostOffset);
}

/** To be called where it is begun. */
export async function tellPart(writing: Promise<void>, bytes: number): Promise<void> {
  const id = acting()?.id;
  await writing;
  events.log?.emit('qcow2_writev_done_part', id, bytes);
}
