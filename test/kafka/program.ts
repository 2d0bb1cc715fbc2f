// A small program around a source, started by faults.servers.test.ts: it must end by itself.
import { kafkaSource } from '../../src/kafka/source.js';

const [broker = '', topic = '', how] = process.argv.slice(2);
const reads = how === 'read';
const source = kafkaSource({ brokers: [broker], topics: [topic], groupId: `program-${topic}`, fromBeginning: reads });
/** `read`: what comes is told line by line, until SIGTERM. */
let records = 0;
process.on('SIGTERM', () => source.drain());
process.on('exit', () => {
  if (reads) console.log(JSON.stringify({ records, maxRssMib: Math.round(process.resourceUsage().maxRSS / 1024) }));
});
const subscription = source.events.subscribe({
  next: (event) => {
    if (event.kind === 'revoked') event.release();
    if (reads && event.kind === 'failed') console.log(JSON.stringify({ failed: event.error.code, message: event.error.message }));
    if (reads && event.kind === 'fetched') {
      records += event.chunk.records.length;
      console.log(JSON.stringify({ partition: event.assignment.partition, lastOffset: event.chunk.lastOffset }));
      // A while later, as inserts that are slow would have it.
      setTimeout(() => source.done(event.assignment, event.chunk.lastOffset), 1500);
    }
    if (reads || event.kind !== 'assigned') return;
    if (how === 'drain') source.drain();
    else setTimeout(() => subscription.unsubscribe(), 300);
  },
  error: (error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  },
});
