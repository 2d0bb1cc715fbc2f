// A thread does not inherit its parent's loader of TypeScript.
import { register } from 'tsx/esm/api';

register();
await import('./thread.ts');
