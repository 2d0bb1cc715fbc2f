/**
 * What a person is told where a state does not speak of the log that is there. Imports: errors, model.
 */
import { IngestError } from '../errors.js';
import type { LogCheck } from '../model/compare-with-log.js';
import type { Assignment } from '../model/record.js';
import { resumeOffset, type PartitionState } from '../model/state.js';

/** `end`: the offset that the log's next record will get. */
export type FoundLog = LogCheck & { readonly end: number };

/** Nothing of it was ingested by this claim: a person decides whether the rows in between are in the table. */
export function behindError(state: PartitionState, { topic, partition, committed = 0 }: Assignment): IngestError {
  const resume = resumeOffset(state) ?? 0;
  const message =
    `The group has committed offset ${committed}, but the state goes on at ${resume}: the state ` +
    'store was set back, or something else has committed for the group. To go on from the ' +
    `state would ingest ${resume}-${committed - 1} once more`;
  return new IngestError('KCR_STATE_BEHIND', message, {
    topic,
    partition,
    first: resume,
    last: committed - 1,
    hint:
      `if the table has those rows ("verify" tells), go on behind them: "state reset --topic ${topic} ` +
      `--partition ${partition} --to-committed --apply"; if they are to be ingested, stop the ` +
      `group, set its offset to ${resume} (kafka-consumer-groups.sh --reset-offsets --topic ` +
      `${topic}:${partition} --to-offset ${resume}) and start again`,
  });
}

export function resetError(
  { topic, partition, topicId }: Assignment,
  found: Exclude<FoundLog, { kind: 'same' }>,
): IngestError {
  if (found.kind === 'recreated') {
    return new IngestError(
      'KCR_TOPIC_RESET',
      `The topic was deleted and recreated: the state is of the topic with the id ${found.was}, Kafka has ${topicId}`,
      {
        topic,
        partition,
        hint:
          'to ingest the new topic from its beginning set onReset to "restart"; its rows join those of the ' +
          'old one in the table',
      },
    );
  }
  const hint =
    found.restarted === undefined
      ? 'a range in doubt reaches into what is gone: look it up in the table by _partition and _offset, then set ' +
        'the state with "state reset"'
      : 'to go on where the log ends set onReset to "restart"; offsets beyond it then stand in the table twice, ' +
        'with the lost records and with new ones';
  return new IngestError(
    'KCR_TOPIC_RESET',
    `The log ends at ${found.end}, but the state tells of offset ${found.known}: the topic was truncated or recreated`,
    {
      topic,
      partition,
      offset: found.known,
      hint,
    },
  );
}
