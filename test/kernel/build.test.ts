import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';

interface Build {
  readonly generated: () => Promise<string>;
}

it('the WebAssembly module that ships is the one its source makes', async () => {
  const build = (await import(new URL('../../src/kernel/build.mjs', import.meta.url).href)) as Build;
  const written = await readFile(new URL('../../src/kernel/value-check.wasm.ts', import.meta.url), 'utf8');
  expect(written).toBe(await build.generated());
}, 60_000);
