/** Fail unless the condition holds. */
export function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message);
}

/** Return the data of a response of openapi-fetch. Fail for an error. */
export function dataOf<Data>(result: { data?: Data; error?: unknown }): NonNullable<Data> {
  if (result.data === undefined || result.data === null) throw new Error(JSON.stringify(result.error));
  return result.data;
}
