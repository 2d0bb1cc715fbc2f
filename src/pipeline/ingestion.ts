/**
 * What `ingest` gives: outcomes that can be told to wait, and looked at. Imports: events, observe, ports, rxjs.
 */
import { Observable, tap, type Subscriber, type TeardownLogic } from 'rxjs';
import type { OnEvent, Outcome } from '../events.js';
import { Meter } from '../observe/meter.js';
import { ingestStatus, type Observed } from '../observe/status.js';
import type { Pausable, RecordSource, SourceFacts } from '../ports.js';

/**
 * The outcomes of an ingestion, a valve and a status.
 *
 * While it is paused no more records are fetched, for whoever is behind it and does not keep up. What is on its way by
 * then (at most the source's byte budget) still comes. Assignments and heartbeats go on. A subscription that begins
 * while it is paused begins so.
 *
 * `status()` says at any moment where each partition is, what is in doubt and what limits; `listen` is for one's own
 * metrics, `registerMetrics` and `serveStatus` are made of both.
 */
export type Ingestion = Observable<Outcome> & Pausable & Observed;

/** What a subscription is given to tell of itself. */
export interface Running {
  readonly meter: Meter;
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
  let isPaused = false;
  const running: Running = {
    meter,
    opened: (source) => {
      sources.add(source);
      if (isPaused) source.pause?.();
      return () => void sources.delete(source);
    },
    onEvent: (event) => {
      meter.event(event);
      onEvent(event);
    },
  };
  const outcomes = new Observable<Outcome>((subscriber) => {
    meter.begin();
    return start(subscriber, running);
  }).pipe(tap({ next: (outcome) => meter.outcome(outcome), finalize: () => meter.end() }));
  return Object.assign(outcomes, {
    pause: () => {
      isPaused = true;
      for (const source of sources) source.pause?.();
    },
    resume: () => {
      isPaused = false;
      for (const source of sources) source.resume?.();
    },
    status: () => ingestStatus({ meter, source: factsOf(sources), isPaused }),
    noted: () => meter.noted,
    listen: (listener: Parameters<Observed['listen']>[0]) => meter.listen(listener),
  });
}

/** There is one, but for an ingestion that is subscribed to twice. */
function factsOf(sources: ReadonlySet<OpenSource>): SourceFacts {
  const all = [...sources].map((source) => source.progress?.() ?? noFacts);
  return all.length === 1 ? (all[0] as SourceFacts) : { partitions: all.flatMap(({ partitions }) => partitions) };
}
