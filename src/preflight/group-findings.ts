/**
 * The group and the stored states before a start: where `run` would go on in each partition, how
 * far that is from what can be read and from the log's end, and what would keep it from joining.
 * Imports: config, kafka, kafka/group, model, stores.
 */
import { topicsOf } from '../config/adapter-options.js';
import type { CheckedConfig } from '../config/config.js';
import { type Finding, ok, refusal, warning } from './finding.js';
import { ASSIGNOR_NAME } from '../kafka/group/assignor.js';
import { groupNow, type GroupNow, type GroupPartition } from '../kafka/group-admin.js';
import { transactionText, transactionTodo } from '../kafka/open-transactions.js';
import { isBehind } from '../model/compare-with-log.js';
import { lastKnownOffset, resumeOffset, type PartitionState } from '../model/state.js';
import { keepsState, openStateAccess } from '../stores/stores.js';

export interface StandingPartition extends GroupPartition {
  /** Undefined: none is stored, or the delivery keeps none. */
  readonly state: PartitionState | undefined;
  /** Where `run` goes on; undefined: where `kafka.fromBeginning` says. */
  readonly resume: number | undefined;
}

export interface StandNow extends Omit<GroupNow, 'partitions'> {
  readonly partitions: readonly StandingPartition[];
}

/** A transaction that is open for less may be one of a producer at work. */
const LONG_OPEN_MS = 10_000;
/** Partitions named in one message. */
const SHOWN = 5;

export async function standNow(config: CheckedConfig): Promise<StandNow> {
  const now = await groupNow({ ...config.kafka, topics: topicsOf(config) });
  const states = keepsState(config) ? await statesOf(config, now) : [];
  const partitions = now.partitions.map((each, index) => {
    const state = states[index];
    return { ...each, state, resume: (state === undefined ? undefined : resumeOffset(state)) ?? each.committed };
  });
  return { ...now, partitions };
}

/** None where the store does not answer, which another check tells. */
async function statesOf(
  config: CheckedConfig,
  { cluster, partitions }: GroupNow,
): Promise<readonly (PartitionState | undefined)[]> {
  const access = openStateAccess(config);
  try {
    return await Promise.all(
      partitions.map(async (each) => {
        const { state, owner } = await access.read(
          { cluster, group: config.kafka.groupId, topic: each.topic, partition: each.partition },
          each,
        );
        return owner === undefined ? undefined : state;
      }),
    );
  } catch {
    return [];
  } finally {
    await access.close();
  }
}

export function groupFindings(config: CheckedConfig, stand: StandNow, nowMs = Date.now()): readonly Finding[] {
  const what = `group ${config.kafka.groupId}`;
  const foreign = foreignFinding(what, stand);
  const places = placeFindings(what, config, stand);
  const heads = [...(foreign === undefined ? [] : [foreign]), ...places];
  return [
    ...(heads.length > 0 ? heads : [ok(what, summaryOf(config, stand))]),
    ...transactionFindings(config, stand, nowMs),
  ];
}

/** Kafka lets nobody join who has no assignor in common with the members. */
function foreignFinding(what: string, { members, assignor, protocolType }: StandNow): Finding | undefined {
  if (members.length === 0) return undefined;
  const who = members.slice(0, SHOWN).join(', ');
  const todo =
    'take a kafka.groupId of its own, or stop those members first: then this program goes on at the offsets of the group';
  if (protocolType !== '' && protocolType !== 'consumer')
    return refusal(
      'KCR_PREFLIGHT',
      what,
      `it is a group of the type "${protocolType}", with the members ${who}: run could not join it`,
      todo,
    );
  if (assignor === '' || assignor === ASSIGNOR_NAME) return undefined;
  return refusal(
    'KCR_PREFLIGHT',
    what,
    `its members (${who}) deal out partitions by "${assignor}", and this program knows "${ASSIGNOR_NAME}" only: ` +
      'run could not join it',
    todo,
  );
}

/** What may become of a partition that does not simply go on where the group says. */
interface PlaceRule {
  readonly holds: (each: StandingPartition) => boolean;
  readonly detail: (each: StandingPartition, place: string) => string;
  readonly todo: (each: StandingPartition) => string;
}

/** Each kind is told once, by its first partition. */
function placeFindings(what: string, config: CheckedConfig, { members, partitions }: StandNow): Finding[] {
  const told = (list: readonly StandingPartition[], { holds, detail, todo }: PlaceRule): Finding[] => {
    const all = list.filter(holds);
    const [first] = all;
    if (first === undefined) return [];
    const others = all.length > 1 ? `; so do ${all.length - 1} more partitions` : '';
    return [warning(what, `${detail(first, `${first.topic}/${first.partition}`)}${others}`, todo(first))];
  };
  const halting = haltingRules(config);
  const settled = partitions.filter((each) => !halting.some(({ holds }) => holds(each)));
  return [
    ...halting.flatMap((rule) => told(partitions, rule)),
    ...goingOnRules(config, members.length > 0).flatMap((rule) => told(settled, rule)),
  ];
}

/** The state and the log contradict each other. */
function haltingRules({ onReset }: CheckedConfig): readonly PlaceRule[] {
  return [
    {
      holds: ({ state, committed }) => state !== undefined && isBehind(state, committed),
      detail: ({ committed, resume }, place) =>
        `the group says ${committed} for ${place}, the state says ${resume}: it is behind the group, and the ` +
        'partition halts (KCR_STATE_BEHIND)',
      todo: () =>
        'the state store was set back, or something else committed for the group: see "verify", then "state reset ' +
        '--to-committed" if the rows are there',
    },
    {
      holds: ({ state, logEnd }) => state !== undefined && (lastKnownOffset(state) ?? -1) >= logEnd,
      detail: ({ state, logEnd }, place) =>
        `the state of ${place} tells of offset ${lastKnownOffset(state as PartitionState)}, and the log ends at ` +
        `${logEnd}: the topic was truncated or recreated, and the partition ` +
        `${onReset === 'halt' ? 'halts (KCR_TOPIC_RESET)' : 'starts again'}`,
      todo: () => 'look at onReset, and see "state show"',
    },
  ];
}

function goingOnRules({ delivery, onGap }: CheckedConfig, isAtWork: boolean): readonly PlaceRule[] {
  return [
    {
      // While members are at work the group lags behind the state by a batch or two.
      holds: ({ state, committed, resume }) =>
        !isAtWork && state !== undefined && committed !== undefined && resume !== undefined && committed < resume,
      detail: ({ committed, resume }, place) =>
        `the group says ${committed} for ${place}, the state says ${resume}: run goes on at ${resume}`,
      todo: ({ topic, partition }) =>
        `to read from elsewhere, set the state and not the group: "state reset --topic ${topic} --partition ` +
        `${partition} --to-offset …"`,
    },
    {
      holds: ({ resume, logStart, logEnd }) => resume !== undefined && resume < logStart && logStart <= logEnd,
      detail: ({ resume, logStart }, place) =>
        `${place} goes on at ${resume}, and the log begins at ${logStart}: ${logStart - (resume ?? 0)} offsets ` +
        'are gone, and the partition ' +
        `${onGap === 'continue' ? 'goes on behind them' : 'halts'}`,
      todo: () => 'look at onGap, and at the retention of the topic',
    },
    {
      holds: ({ state, resume, logEnd }) => state === undefined && resume !== undefined && resume > logEnd,
      detail: ({ resume, logStart, logEnd }, place) =>
        `its offset ${resume} of ${place} is outside of the log, which holds ${logStart} to ${logEnd - 1}`,
      todo: () =>
        delivery === 'exactly-once'
          ? 'the partition waits for a state, then it halts: see "state show", and look at onReset'
          : 'look at onReset',
    },
  ];
}

function summaryOf(config: CheckedConfig, { members, partitions }: StandNow): string {
  const { fromBeginning = false } = config.kafka;
  const known = partitions.filter(({ resume }) => resume !== undefined);
  const stated = partitions.filter(({ state }) => state !== undefined).length;
  const lag = (end: 'stableEnd' | 'logEnd'): number =>
    known.reduce((sum, each) => sum + Math.max(0, each[end] - Math.max(each.resume ?? 0, each.logStart)), 0);
  const held = lag('logEnd') - lag('stableEnd');
  const begins =
    known.length === partitions.length
      ? ''
      : `; the others begin at the ${fromBeginning ? 'beginning' : 'end'} of their logs`;
  const states = stated === 0 ? '' : `, ${stated} of them a state that decides`;
  return (
    `${members.length} members, ${known.length} of ${partitions.length} partitions have an offset${states}, ` +
    `${lag('logEnd')} offsets ` +
    `behind${held === 0 ? '' : `, of which ${held} cannot be read yet`}${begins}`
  );
}

function transactionFindings(
  { kafka: { brokers } }: CheckedConfig,
  { partitions, transactions }: StandNow,
  nowMs: number,
): Finding[] {
  const held = partitions.filter(({ stableEnd, logEnd }) => stableEnd < logEnd);
  return held.slice(0, SHOWN).map((each) => {
    const { topic, partition, stableEnd, logEnd } = each;
    const what = `transactions on ${topic}/${partition}`;
    const open = transactions.find((other) => other.topic === topic && other.partition === partition);
    const rest = held.length > SHOWN ? `; ${held.length - SHOWN} more partitions are held back` : '';
    const detail =
      `offsets ${stableEnd}-${logEnd - 1} cannot be read yet: held back by ` +
      `${open === undefined ? 'an open transaction, of which the brokers tell nothing' : transactionText(open, nowMs)}${rest}`;
    if (open?.sinceMs !== undefined && nowMs - open.sinceMs < LONG_OPEN_MS) return ok(what, detail);
    return warning(
      what,
      detail,
      open === undefined
        ? 'find it with kafka-transactions.sh find-hanging'
        : transactionTodo(open, brokers[0] ?? 'host:port'),
    );
  });
}
