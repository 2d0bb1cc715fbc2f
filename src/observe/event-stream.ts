/**
 * `/events`: the status once a second and what happens, as server-sent events, to a few listeners. A listener that does
 * not read is let go: nothing waits for it. Imports: Node.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Notice } from './notice.js';
import type { IngestStatus, Observed } from './status.js';

const STATUS_MS = 1000;
/** Five minutes of points are kept for the page's charts. */
const MAX_POINTS = 300;
const MAX_LISTENERS = 20;
/** Notices a second. */
const MAX_FRESH = 100;
/** What may wait for a listener, bytes. */
const MAX_WAITING_BYTES = 1_048_576;

export class EventStream {
  readonly #observed: Observed;
  readonly #listeners = new Set<ServerResponse>();
  readonly #timer: NodeJS.Timeout;
  readonly #points: Point[] = [];
  readonly #stopListening: () => void;
  /** What was noted since the last tick, each as it stands. */
  readonly #fresh = new Map<number, Notice>();

  constructor(observed: Observed) {
    this.#observed = observed;
    this.#stopListening = observed.listen({ noted: (notice) => this.#fresh.set(notice.id, notice) });
    this.#timer = setInterval(() => this.#tick(), STATUS_MS).unref();
  }

  /** Answers the request for as long as it stays open, or gives what to answer instead. */
  take(response: ServerResponse, request: IncomingMessage) {
    if (this.#listeners.size >= MAX_LISTENERS)
      return { status: 503, type: 'text/plain; charset=utf-8', body: `${MAX_LISTENERS} listeners are enough\n` };
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    });
    if (request.method === 'HEAD') return void response.end();
    this.#listeners.add(response);
    response.on('close', () => this.#listeners.delete(response));
    const history = `event: history\ndata: ${JSON.stringify(this.#points)}\n\n`;
    this.#send(response, history + messages(this.#observed.status(), this.#observed.noted()));
    return undefined;
  }

  close(): void {
    for (const response of this.#listeners) response.end();
    this.#listeners.clear();
    clearInterval(this.#timer);
    this.#stopListening();
  }

  #tick(): void {
    const status = this.#observed.status();
    const { rowsPerSecond, lagRecords, insertSeconds } = status;
    this.#points.push({ rowsPerSecond, lagRecords, insertSeconds });
    if (this.#points.length > MAX_POINTS) this.#points.shift();
    const noted = [...this.#fresh.values()].slice(-MAX_FRESH);
    this.#fresh.clear();
    if (this.#listeners.size === 0) return;
    const text = messages(status, noted);
    for (const response of this.#listeners) this.#send(response, text);
  }

  #send(response: ServerResponse, text: string): void {
    if (response.writableLength > MAX_WAITING_BYTES) return void response.destroy();
    response.write(text);
  }
}

/** What the charts show of a second. */
type Point = Pick<IngestStatus, 'rowsPerSecond' | 'lagRecords' | 'insertSeconds'>;

function messages(status: IngestStatus, notices: readonly Notice[]): string {
  return [
    `event: status\ndata: ${JSON.stringify(status)}\n\n`,
    ...notices.map((notice) => `event: notice\ndata: ${JSON.stringify(notice)}\n\n`),
  ].join('');
}
