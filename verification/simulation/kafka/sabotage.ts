// Imports: the parts of the Kafka source, to break them. Lines of it taken out on purpose while a run lasts; nothing of
// this ships. A simulation that does not find one of them is blind.
import events from 'node:events';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { LANES } from '../../../src/kafka/connection/lanes.js';
import { Membership } from '../../../src/kafka/group/membership.js';
import { StartOffsets } from '../../../src/kafka/group/start-offsets.js';
import { Committing } from '../../../src/kafka/group/commit-in-order.js';
import { FetchSession } from '../../../src/kafka/fetch/fetch-session.js';
import { Fetcher } from '../../../src/kafka/fetch/fetcher.js';
import type { KafkaSource } from '../../../src/kafka/source.js';
import { IngestError } from '../../../src/errors.js';
import { from, map } from 'rxjs';
import type { Theme } from './scenario.js';

export interface KafkaSabotage {
  /** What is broken, in a sentence. */
  readonly means: string;
  /** Where it is looked for. @default everywhere */
  readonly theme?: Theme | undefined;
  /** Kinds of findings that show it. */
  readonly shows: readonly string[];
  readonly changeSource?: (source: KafkaSource) => KafkaSource;
  readonly install?: () => () => void;
}

/** Replaces a method of every instance, and gives back what puts it back. */
function replacing<Type extends object, Name extends keyof Type>(
  prototype: Type,
  name: Name,
  change: (method: Type[Name]) => Type[Name],
): () => () => void {
  return () => {
    const method = prototype[name];
    prototype[name] = change(method);
    return () => void (prototype[name] = method);
  };
}

/** The connection of commits is that of heartbeats. */
function oneLane(): () => void {
  const lanes = LANES as { offsets: number };
  const before = lanes.offsets;
  lanes.offsets = LANES.group;
  return () => void (lanes.offsets = before);
}

/** Whoever listens to a signal many times is warned of. */
function warnsOfListeners(): () => void {
  const before = Object.getOwnPropertyDescriptor(events, 'setMaxListeners')!;
  events.setMaxListeners = () => undefined;
  syncBuiltinESMExports();
  return () => {
    Object.defineProperty(events, 'setMaxListeners', before);
    syncBuiltinESMExports();
  };
}

interface SendingConnection {
  send(request: unknown): Promise<unknown>;
}

const { prototype: connection } = createRequire(import.meta.url)('kafkajs/src/network/connection') as {
  readonly prototype: SendingConnection;
};

/** What comes over any connection, changed before anybody sees it. */
function changingAnswers(
  answered: (answer: unknown) => unknown,
  failed: (thrown: unknown) => unknown,
): () => () => void {
  return replacing(
    connection,
    'send',
    (send) =>
      function (this: SendingConnection, request) {
        return send.call(this, request).then(answered, (thrown: unknown) => {
          throw failed(thrown);
        });
      },
  );
}

export const kafkaSabotages: Readonly<Record<string, KafkaSabotage>> = {
  'J2 demand': {
    means: 'a commit whose outcome is not known is followed by no new generation',
    theme: 'converted',
    shows: ['overwritten', 'doubled', 'missing', 'I1', 'I4'],
    install: replacing(Membership.prototype, 'demandGeneration', () => () => undefined),
  },
  'J3 grown': {
    means: 'a partition that was added begins at its end',
    theme: 'growth',
    shows: ['stuck', 'missing'],
    install: replacing(
      Membership.prototype,
      'join',
      (join) =>
        async function (this: Membership, signal) {
          const joined = await join.call(this, signal);
          return joined === undefined ? undefined : { ...joined, grown: new Set() };
        },
    ),
  },
  'J4 lanes': {
    means: 'commits go over the connection of the heartbeats',
    theme: 'slow commits',
    shows: ['expired', 'stuck'],
    install: oneLane,
  },
  'J5 throttle': {
    means: 'the throttle time of a fetch is ignored',
    theme: 'quota',
    shows: ['muted'],
    install: changingAnswers(
      (answer) =>
        typeof answer === 'object' && answer !== null && 'throttleMs' in answer ? { ...answer, throttleMs: 0 } : answer,
      (thrown) => thrown,
    ),
  },
  'J5 cut': {
    means: 'a fetch that is not answered cuts the connection of the commits instead of its own',
    theme: 'silent fetches',
    shows: ['joined', 'expired'],
    install: () => {
      const lanes = LANES as { fetch: number };
      const before = lanes.fetch;
      lanes.fetch = LANES.offsets;
      return () => void (lanes.fetch = before);
    },
  },
  'J6 all or none': {
    means: 'a partition without a leader keeps the others from beginning',
    theme: 'orphan',
    shows: ['held up'],
    install: replacing(
      StartOffsets.prototype,
      'of',
      (of) =>
        async function (this: StartOffsets, ...args) {
          const found = await of.apply(this, args);
          if (found.missing.length > 0) throw new IngestError('KCR_KAFKA_UNREACHABLE', 'one partition is missing');
          return found;
        },
    ),
  },
  'J7 watch': {
    means: 'who deals does not watch the topics',
    theme: 'growth',
    shows: ['stuck', 'missing'],
    install: replacing(
      Membership.prototype,
      'join',
      (join) =>
        async function (this: Membership, signal) {
          const joined = await join.call(this, signal);
          return joined === undefined ? undefined : { ...joined, dealt: undefined };
        },
    ),
  },
  'J8 whole': {
    means: 'an error for a whole fetch ends the source',
    shows: ['crash'],
    install: changingAnswers(
      (answer) => answer,
      (thrown) =>
        thrown instanceof Error && /^error /.test(String((thrown as { type?: unknown }).type))
          ? Object.assign(thrown, { type: 'UNSUPPORTED_VERSION' })
          : thrown,
    ),
  },
  'J8 session': {
    means: 'a fetch session that the broker has forgotten is gone on with',
    shows: ['stuck', 'held up'],
    install: replacing(FetchSession.prototype, 'broken', () => () => undefined),
  },
  'J1 moves': {
    means: 'a fetch session is not told how far its partitions were read',
    shows: ['stuck', 'held up'],
    install: replacing(
      FetchSession.prototype,
      'next',
      (next) =>
        function (this: FetchSession, wanted) {
          const request = next.call(this, wanted);
          return request.epoch > 0 ? { ...request, partitions: [] } : request;
        },
    ),
  },
  'J9 committed': {
    means: 'the claim is not told what the group has committed',
    theme: 'set back',
    shows: ['doubled'],
    changeSource: (source) => ({
      ...source,
      events: from(source.events).pipe(
        map((event) =>
          event.kind === 'assigned' ? { ...event, assignment: { ...event.assignment, committed: undefined } } : event,
        ),
      ),
    }),
  },
  'J10 listeners': {
    means: 'signals that many wait on warn of a leak',
    theme: 'recreated',
    shows: ['leak'],
    install: warnsOfListeners,
  },
  'in turn': {
    means: 'a commit whose outcome is not known is taken for refused, and the next one follows in the same generation',
    shows: ['overwritten', 'doubled', 'missing', 'I1', 'I4'],
    install: replacing(
      Committing.prototype,
      'commitOnce',
      () =>
        function (this: Committing, ...args) {
          return this.commit(...args);
        },
    ),
  },
  wake: {
    means: 'a claim wakes nobody, and room that was made neither',
    shows: ['stuck', 'held up'],
    install: () => {
      const claimed = replacing(Fetcher.prototype, 'claimed', () => () => undefined)();
      const made = replacing(Fetcher.prototype, 'roomMade', () => () => undefined)();
      return () => {
        made();
        claimed();
      };
    },
  },
};
