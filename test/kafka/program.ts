// A small program around a source, started by faults.servers.test.ts: it must end by itself.
import { kafkaSource } from '../../src/kafka/source.js';

const [broker = '', topic = '', how] = process.argv.slice(2);
const source = kafkaSource({ brokers: [broker], topics: [topic], groupId: `program-${topic}` });
const subscription = source.events.subscribe({
  next: (event) => {
    if (event.kind === 'revoked') event.release();
    if (event.kind !== 'assigned') return;
    if (how === 'drain') source.drain();
    else setTimeout(() => subscription.unsubscribe(), 300);
  },
  error: (error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  },
});
