/**
 * What a simulated ClickHouse, or what stands before it, does to one request. Imports: nothing.
 */

/**
 * | fault | what takes place | what is answered |
 * | --- | --- | --- |
 * | `answer` | nothing, the first ClickHouse partition's block, or all | this code, as the server names it |
 * | `die` | so many blocks; `isTorn`: of the next one the token without the rows | nothing: every connection breaks, and the server is started again |
 * | `unknown part` | all; Keeper has it or not, which the server finds out after five minutes, and then keeps or drops it | code 319 |
 * | `slow` | all, so late | after that; meanwhile it runs, and can be seen to |
 * | `balancer` | nothing: something before the server answers for it | 200, an empty body, and no header of ClickHouse's |
 * | `page` | nothing | this status, and a page of a proxy |
 */
export type ServerFault =
  | { readonly kind: 'answer'; readonly code: number; readonly landed: 'nothing' | 'first' | 'all' }
  | { readonly kind: 'die'; readonly afterBlocks: number; readonly isTorn: boolean }
  | { readonly kind: 'unknown part'; readonly isKept: boolean }
  | { readonly kind: 'slow'; readonly ms: number }
  | { readonly kind: 'balancer' }
  | { readonly kind: 'page'; readonly status: number };
