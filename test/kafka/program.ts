// A small program around a source, started by faults.servers.test.ts: it must end by itself.
import { readFileSync } from 'node:fs';
import { kafkaSource } from '../../src/kafka/source.js';

const [broker = '', topic = '', how] = process.argv.slice(2);
const reads = how === 'read';
const source = kafkaSource({ brokers: [broker], topics: [topic], groupId: `program-${topic}`, fromBeginning: reads });
/** `read`: what comes is told line by line, until SIGTERM. */
let records = 0;
/** The most memory so far. What Node tells of it begins with that of the process that started this one. */
const maxRssMib = (): number =>
  Math.round(Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024);
process.on('SIGTERM', () => source.drain());
process.on('exit', () => {
  if (reads) console.log(JSON.stringify({ records, maxRssMib: maxRssMib() }));
});
const subscription = source.events.subscribe({
  next: (event) => {
    if (event.kind === 'revoked') event.release();
    if (reads && event.kind === 'failed')
      console.log(JSON.stringify({ failed: event.error.code, message: event.error.message }));
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
