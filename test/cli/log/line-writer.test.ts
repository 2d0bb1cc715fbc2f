// What cannot be written waits within a limit or is counted; nobody waits for it.
import { expect, test } from 'vitest';
import { LineWriter } from '../../../src/cli/log/line-writer.js';

/** An output that does as the list says, one entry an attempt, and takes everything afterwards. */
function outputOf(...does: readonly (number | string)[]) {
  const taken: string[] = [];
  const steps = [...does];
  const output = async (bytes: Uint8Array): Promise<number> => {
    const step = steps.shift() ?? bytes.length;
    if (typeof step === 'string') throw Object.assign(new Error(step), { code: step });
    taken.push(Buffer.from(bytes.subarray(0, step)).toString());
    return Math.min(step, bytes.length);
  };
  return { output, text: () => taken.join(''), attempts: () => does.length - steps.length };
}

const config = { lostLine: (lines: number) => `${lines} lost\n`, fullPauseMs: 1, brokenPauseMs: 1 };
/** Keeps the process alive while the writer's own timers do not. */
async function closed(writer: LineWriter, limitMs = 5_000): Promise<void> {
  await writer.close(limitMs);
}

test('lines come in their order, also where each write takes a few bytes only', async () => {
  const { output, text } = outputOf(3, 'EAGAIN', 1, 2);
  const writer = new LineWriter({ ...config, output });
  for (const line of ['one\n', 'two\n', 'three\n']) writer.write(line);
  await closed(writer);
  expect(text()).toBe('one\ntwo\nthree\n');
});

test('G1: what a pipe does not take is kept up to the limit, the rest is counted, and the count is told when it takes again', async () => {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => (open = resolve));
  let text = '';
  const writer = new LineWriter({
    ...config,
    maxBytes: 40,
    output: async (bytes) => {
      await opened;
      text += Buffer.from(bytes).toString();
      return bytes.length;
    },
  });
  for (let i = 0; i < 10; i++) writer.write(`line ${i} is\n`);
  open();
  await closed(writer);
  expect(text).toBe('line 0 is\nline 1 is\nline 2 is\nline 3 is\n6 lost\n');
  writer.write('after\n');
  await closed(writer);
  expect(text).toMatch(/6 lost\nafter\n$/);
});

test.each(['ENOSPC', 'EPIPE', 'EIO'])(
  'G2: %s ends nothing: the same line is tried again, and written when there is room',
  async (code) => {
    const { output, text } = outputOf(code, code, code);
    const writer = new LineWriter({ ...config, output });
    writer.write('one\n');
    writer.write('two\n');
    await expect.poll(text).toBe('one\ntwo\n');
  },
);

test('G2: closing waits for nobody whose writes fail, and no longer than its limit for who does not read', async () => {
  const broken = new LineWriter({
    ...config,
    output: () => Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' })),
  });
  broken.write('one\n');
  await closed(broken, 1_000_000);
  const unread = new LineWriter({
    ...config,
    output: () => Promise.reject(Object.assign(new Error('unread'), { code: 'EAGAIN' })),
  });
  unread.write('one\n');
  await closed(unread, 20);
});
