// What `check` says of a group: where a run would go on in each partition, and what would keep it from that.
import { describe, expect, test } from 'vitest';
import { checkConfig, type CheckedConfig, type IngestConfig } from '../../src/config/config.js';
import { ASSIGNOR_NAME } from '../../src/kafka/group/assignor.js';
import { resumeOffset, type PartitionState } from '../../src/model/state.js';
import { groupFindings, type StandingPartition, type StandNow } from '../../src/preflight/group-findings.js';
import { stateOf } from '../support/fakes.js';

const configOf = (more: Partial<IngestConfig> = {}): CheckedConfig =>
  checkConfig({
    kafka: { brokers: ['a:1'], groupId: 'g' },
    clickhouse: { url: 'http://ch' },
    state: { store: 'keeper', connect: 'a:1' },
    delivery: 'exactly-once',
    routes: [{ topic: 't', table: 't' }],
    ...more,
  });

interface At {
  readonly committed?: number;
  readonly state?: PartitionState;
  readonly log?: readonly [start: number, end: number];
}

function standOf(places: readonly At[], more: Partial<StandNow> = {}): StandNow {
  const partitions = places.map(({ committed, state, log: [logStart, logEnd] = [0, 100] }, partition) => ({
    topic: 't',
    partition,
    committed,
    metadata: '',
    logStart,
    logEnd,
    stableEnd: logEnd,
    state,
    resume: (state === undefined ? undefined : resumeOffset(state)) ?? committed,
  })) as readonly StandingPartition[];
  return {
    cluster: 'c',
    members: [],
    transactions: [],
    assignor: '',
    protocolType: '',
    ...more,
    partitions,
  };
}

const told = (stand: StandNow, config = configOf()) =>
  groupFindings(config, stand, 0).map(({ level, detail, todo }) => `${level} ${detail} → ${todo ?? ''}`);

describe('a partition that does not go on where the group says', () => {
  test.each<[string, readonly At[], RegExp, Partial<IngestConfig>?]>([
    ['its state is behind', [{ committed: 50, state: stateOf(9) }], /group says 50 for t\/0.*KCR_STATE_BEHIND.*verify/],
    [
      'the log ends before its state',
      [{ committed: 10, state: stateOf(149) }],
      /tells of offset 149, and the log ends at 100.*halts \(KCR_TOPIC_RESET\).*onReset/,
    ],
    [
      'the same under onReset "restart"',
      [{ committed: 10, state: stateOf(149) }],
      /the partition starts again/,
      { onReset: 'restart' },
    ],
    [
      'the group was set back',
      [{ committed: 5, state: stateOf(9) }],
      /run goes on at 10 → .*state reset --topic t --partition 0/,
    ],
    [
      'records are gone',
      [{ committed: 5, log: [20, 100] }],
      /goes on at 5, and the log begins at 20: 15 offsets are gone.*halts/,
    ],
    ['the same under onGap', [{ committed: 5, log: [20, 100] }], /goes on behind them/, { onGap: 'continue' }],
    [
      'the group is beyond the log',
      [{ committed: 500 }],
      /its offset 500 of t\/0 is outside of the log.*waits for a state/,
    ],
    [
      'the same without a state to wait for',
      [{ committed: 500 }],
      /outside of the log, which holds 0 to 99 → look at onReset$/,
      { delivery: 'at-least-once' },
    ],
  ])('%s', (_what, places, says, more) => {
    expect(told(standOf(places), configOf(more))).toEqual([expect.stringMatching(says)]);
  });

  test('each kind is told once, with how many more there are, and the gravest first', () => {
    const behind = { committed: 50, state: stateOf(9) };
    const found = told(standOf([{ committed: 5, log: [20, 100] }, behind, behind, behind]));
    expect(found).toHaveLength(2);
    expect(found[0]).toMatch(/for t\/1.*so do 2 more partitions/);
    expect(found[1]).toMatch(/t\/0 goes on at 5/);
  });

  test('is told nothing of the group’s lag while members are at work', () => {
    const stand = standOf([{ committed: 5, state: stateOf(9) }], { members: ['m'], assignor: ASSIGNOR_NAME });
    expect(told(stand)).toEqual([
      expect.stringMatching(/^ok 1 members, 1 of 1 partitions have an offset, 1 of them a state/),
    ]);
  });
});

test('a group that cannot be joined is refused, by its kind or by how it deals out partitions', () => {
  const members = ['connect-1'];
  expect(told(standOf([{}], { members, protocolType: 'connect' }))[0]).toMatch(
    /refusal it is a group of the type "connect"/,
  );
  expect(told(standOf([{}], { members, protocolType: 'consumer', assignor: 'range' }))[0]).toMatch(
    /refusal its members \(connect-1\) deal out partitions by "range"/,
  );
});
