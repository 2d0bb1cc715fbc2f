/**
 * What `ingest` gives: outcomes that can be told to wait. Imports: ports, rxjs.
 */
import { Observable, type Subscriber, type TeardownLogic } from 'rxjs';
import type { Outcome } from '../events.js';
import type { Pausable } from '../ports.js';

/**
 * The outcomes of an ingestion, and a valve: while it is paused no more records are fetched, for whoever is behind it and
 * does not keep up. What is on its way by then (at most the source's byte budget) still comes. Assignments and heartbeats
 * go on. A subscription that begins while it is paused begins so.
 */
export type Ingestion = Observable<Outcome> & Pausable;

/** `start` is given what to call with the source once it is open; what that gives is called when the source is over. */
export function ingestionOf(
  start: (subscriber: Subscriber<Outcome>, opened: (source: Partial<Pausable>) => () => void) => TeardownLogic,
): Ingestion {
  const sources = new Set<Partial<Pausable>>();
  let isPaused = false;
  const opened = (source: Partial<Pausable>) => {
    sources.add(source);
    if (isPaused) source.pause?.();
    return () => void sources.delete(source);
  };
  return Object.assign(new Observable<Outcome>((subscriber) => start(subscriber, opened)), {
    pause: () => {
      isPaused = true;
      for (const source of sources) source.pause?.();
    },
    resume: () => {
      isPaused = false;
      for (const source of sources) source.resume?.();
    },
  });
}
