/**
 * Answers that have an error code for each partition. kafkajs throws the first of them and forgets the rest.
 * Imports: kafka/group.
 */
import { nameOf } from '../group/assignor.js';
import { through, type TopicPartitions, type KafkajsBroker, type WireResponse } from './broker.js';

/** The error of each partition that has one, by its name. */
export type PartitionErrors = ReadonlyMap<string, unknown>;

/**
 * Makes a call and tells the errors of single partitions apart from its answer.
 *
 * @throws what befell the whole request.
 */
export async function withErrors<Answer>(
  broker: KafkajsBroker,
  call: (broker: KafkajsBroker) => Promise<Answer>,
): Promise<{ readonly answer: Answer; readonly errors: PartitionErrors }> {
  const errors = new Map<string, unknown>();
  const view = through(broker, (pool, kafka) => pool.send({ ...kafka, response: collecting(kafka.response, errors) }));
  return { answer: await call(view), errors };
}

interface Decoded {
  readonly responses: readonly TopicPartitions<{ readonly partition: number; readonly errorCode: number }>[];
}

/** kafkajs's own parser is shown one partition at a time: it knows the names of the codes. */
function collecting(response: WireResponse, errors: Map<string, unknown>): WireResponse {
  const parse = async (decoded: unknown): Promise<unknown> => {
    const { responses } = decoded as Decoded;
    await response.parse({ ...(decoded as Decoded), responses: [] });
    for (const { topic, partitions } of responses) {
      for (const partition of partitions) {
        if (partition.errorCode === 0) continue;
        const parsing = response.parse({ ...(decoded as Decoded), responses: [{ topic, partitions: [partition] }] });
        await parsing.catch((error: unknown) => errors.set(nameOf({ topic, partition: partition.partition }), error));
      }
    }
    return decoded;
  };
  return { decode: (payload) => response.decode(payload), parse };
}
