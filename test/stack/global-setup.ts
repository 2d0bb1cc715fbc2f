// vitest's globalSetup for tests against real servers: one stack for the whole run; see shared.ts.
import type { TestProject } from 'vitest/node';
import type {} from './shared.js';
import { startStack } from './stack.js';

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const stack = await startStack();
  const { brokers, clickhouseUrl, keeperConnect } = stack;
  project.provide('stack', { brokers, clickhouseUrl, keeperConnect });
  return () => stack.stop();
}
