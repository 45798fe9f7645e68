/** The parameters and results of operations, derived from the generated types. */
import type { operations } from './schema.js';

export type OperationId = keyof operations;

type Empty = Record<never, never>;
type Of<Id extends OperationId, Key extends string> = operations[Id] extends { [key in Key]?: infer Value } ? Value : never;
type In<Parameters, Place extends string> = Parameters extends { [key in Place]?: infer Values }
  ? [NonNullable<Values>] extends [never] ? Empty : NonNullable<Values>
  : Empty;

/** A body other than JSON. */
export type RawBody = Blob | ReadableStream<Uint8Array> | Uint8Array | string;

type ContentOf<Content> = Content extends { 'multipart/form-data': unknown } ? FormData
  : Content extends { 'application/x-ndjson': unknown } ? RawBody
  : Content extends { 'application/json': infer Json } ? Json
  : RawBody;
type Body<Id extends OperationId> = operations[Id] extends { requestBody: { content: infer Content } }
  ? { body: ContentOf<Content> }
  : [NonNullable<Of<Id, 'requestBody'>>] extends [never] ? Empty
  : NonNullable<Of<Id, 'requestBody'>> extends { content: infer Content } ? { body?: ContentOf<Content> } : Empty;

/** The parameters of the path and of the query, and the body as `body`. */
export type Input<Id extends OperationId> = In<operations[Id]['parameters'], 'path'> &
  In<operations[Id]['parameters'], 'query'> & Body<Id>;

type Success = 200 | 201 | 202;
type Responses<Id extends OperationId> = operations[Id]['responses'];
type Content<Id extends OperationId> = {
  [Status in keyof Responses<Id> & Success]: Responses<Id>[Status] extends { content: infer Content } ? Content : never;
}[keyof Responses<Id> & Success];
type JsonOf<Content> = Content extends { 'application/json': infer Json } ? Json
  : Content extends { 'application/feed+json': infer Json } ? Json
  : never;
type Value<Id extends OperationId> = [Content<Id>] extends [never] ? void
  : keyof Content<Id> extends 'application/json' | 'application/feed+json' ? JsonOf<Content<Id>>
  : Response;

/** A page of a list. `next` is the cursor of the next page, `total` the number of items if `count` was set. */
export type Page<Item> = Item[] & { readonly next: string | null; readonly total: number | null };

type WithPages<Value> = Value extends (infer Item)[] ? Page<Item> : Value;
/** What the method of an operation returns: JSON, nothing, or the response itself for other media types. */
export type Result<Id extends OperationId> = WithPages<Value<Id>>;

/** Options of a single request. */
export interface RequestOptions {
  /** Change only this version: an ETag from `etagOf`. */
  ifMatch?: string | null;
  /** Repeat a POST of an earlier process safely. By default, each call has a new key. */
  idempotencyKey?: string;
  /** The media type of a body that is not JSON. */
  contentType?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The method of an operation. */
export type Method<Id extends OperationId> = Empty extends Input<Id>
  ? (input?: Input<Id>, options?: RequestOptions) => Promise<Result<Id>>
  : (input: Input<Id>, options?: RequestOptions) => Promise<Result<Id>>;

/** The facts of an operation that requests need; the generated table has one for each. */
export interface OperationInfo {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  /** How the list is paginated: by cursors in `Link`, or by `skip`. */
  readonly pages?: 'cursor' | 'skip';
  /** Whether it accepts an Idempotency-Key. */
  readonly key?: true;
  /** Whether the response is returned as it is. */
  readonly raw?: true;
}
