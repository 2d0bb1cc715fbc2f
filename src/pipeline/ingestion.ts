/**
 * What `ingest` gives: outcomes that can be told to wait, and looked at. Imports: events, model, observe, ports, rxjs.
 */
import { Observable, tap, type Subscriber, type TeardownLogic } from 'rxjs';
import type { OnEvent, Outcome } from '../events.js';
import { Meter } from '../observe/meter.js';
import { ingestStatus, type Observed } from '../observe/status.js';
import { Pauses, type PartitionSelection } from '../model/pauses.js';
import type { Pausable, RecordSource, SourceFacts } from '../ports.js';

/**
 * The outcomes of an ingestion, a valve and a status.
 *
 * `pause()` fetches no more records, of all partitions or of the selected ones: `pause({ topic, partition })`. What is
 * on its way by then (at most the source's byte budget) still comes, and a range in doubt of which records are missing
 * stays in doubt. Assignments and heartbeats go on. It holds for partitions that are assigned later and for
 * subscriptions that begin later, until `resume()`. Errors: `KCR_CONFIG` for a selection that is none.
 *
 * `drain()` does what aborting the option `signal` does: what was taken is inserted, settled and committed, then the
 * outcomes complete. Before the first subscription it has no effect.
 *
 * `status()` says at any moment where each partition is, what is in doubt and what limits; `listen` is for one's own
 * metrics, `registerMetrics` and `serveStatus` are made of both.
 */
export type Ingestion = Observable<Outcome> & Pausable & Observed & { drain(): void };

/** What a subscription is given to tell of itself. */
export interface Running {
  readonly meter: Meter;
  /** Aborted when it is to drain. */
  readonly draining: AbortSignal;
  /** Called with the source once it is open; gives what to call when the source is over. */
  readonly opened: (source: OpenSource) => () => void;
  /** To be called with each event. */
  readonly onEvent: OnEvent;
}

type OpenSource = Partial<Pausable> & Pick<RecordSource, 'progress'>;

const noFacts: SourceFacts = { partitions: [] };

export function ingestionOf(
  start: (subscriber: Subscriber<Outcome>, running: Running) => TeardownLogic,
  onEvent: OnEvent = () => undefined,
): Ingestion {
  const sources = new Set<OpenSource>();
  const meter = new Meter();
  const pauses = new Pauses();
  const subscriptions = new Set<AbortController>();
  const running: Omit<Running, 'draining'> = {
    meter,
    opened: (source) => {
      sources.add(source);
      pauses.applyTo(source);
      return () => void sources.delete(source);
    },
    onEvent: (event) => {
      meter.event(event);
      onEvent(event);
    },
  };
  const outcomes = new Observable<Outcome>((subscriber) => {
    const drain = new AbortController();
    subscriptions.add(drain);
    subscriber.add(() => void subscriptions.delete(drain));
    meter.begin();
    return start(subscriber, { ...running, draining: drain.signal });
  }).pipe(tap({ next: (outcome) => meter.outcome(outcome), finalize: () => meter.end() }));
  return Object.assign(outcomes, {
    pause: (selection?: PartitionSelection) => {
      pauses.pause(selection);
      for (const source of sources) source.pause?.(selection);
    },
    resume: (selection?: PartitionSelection) => {
      pauses.resume(selection);
      for (const source of sources) source.resume?.(selection);
    },
    drain: () => {
      for (const drain of subscriptions) drain.abort();
    },
    status: () => ingestStatus({ meter, source: factsOf(sources), pauses }),
    noted: () => meter.noted,
    listen: (listener: Parameters<Observed['listen']>[0]) => meter.listen(listener),
  });
}

/** There is one, but for an ingestion that is subscribed to twice. */
function factsOf(sources: ReadonlySet<OpenSource>): SourceFacts {
  const all = [...sources].map((source) => source.progress?.() ?? noFacts);
  return all.length === 1 ? (all[0] as SourceFacts) : { partitions: all.flatMap(({ partitions }) => partitions) };
}
