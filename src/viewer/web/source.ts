import type { EventLine, LoadingState, Overview, RequestDetail, View, ViewQuery } from '../answers.js';
import type { Filter } from '../filter.js';
import type { Place } from '../model.js';
import type { Question } from '../questions.js';
import { decode } from '../wire.js';
import type { TimeSpan } from '../window.js';

export interface Events {
  readonly lines: readonly EventLine[];
  readonly next: number | null;
}

/** Where answers come from. A call that its signal ends rejects. */
export interface Source {
  /** Whether it is read yet. */
  status(): Promise<LoadingState>;
  overview(): Promise<Overview>;
  view(query: ViewQuery, signal: AbortSignal): Promise<View>;
  events(span: TimeSpan, filter: Filter, limit: number, signal: AbortSignal): Promise<Events>;
  nearest(place: Place): Promise<RequestDetail | null>;
  request(row: number): Promise<RequestDetail | null>;
}

/** The way to whoever knows the trace; answers are what `answer` gives. */
export function sourceOf(ask: (question: Question, signal?: AbortSignal) => Promise<unknown>, status: () => Promise<LoadingState>): Source {
  return {
    status,
    // `answer` is the one that answers, here or in the server, and gives each question this
    overview: async () => await ask({ ask: 'overview' }) as Overview,
    view: async (query, signal) => await ask({ ask: 'view', ...query }, signal) as View,
    events: async (span, filter, limit, signal) => await ask({ ask: 'events', ...span, filter, limit }, signal) as Events,
    nearest: async (place) => await ask({ ask: 'nearest', ...place }) as RequestDetail | null,
    request: async (row) => await ask({ ask: 'request', row }) as RequestDetail | null,
  };
}

/** `trace serve`, which the page came from. */
export function serverSource(): Source {
  const fetched = async (path: string, init: RequestInit): Promise<Response> => {
    const response = await fetch(path, init);
    if (!response.ok) throw new Error((await response.text()).trim());
    return response;
  };
  return sourceOf(
    async (question, signal) => decode(await (await fetched('ask', { method: 'POST', body: JSON.stringify(question), ...(signal === undefined ? {} : { signal }) })).arrayBuffer()),
    async () => await (await fetched('status', {})).json() as LoadingState,
  );
}
