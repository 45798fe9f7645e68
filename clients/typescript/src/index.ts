export { createClient, etagOf, responseOf, type ClientOptions, type Core, type Pressroom } from './client.js';
export { PressroomError, isError, type ErrorBody, type ErrorCode, type ErrorOf } from './errors.js';
export type { Operations } from './operations.js';
export { localStorageStore, memoryStore, type StoredTokens, type TokenStore } from './session.js';
export type { CommentEvent, StreamData, StreamEvent, StreamInput } from './stream.js';
export type { RetryOptions } from './transport.js';
export type { Page, RequestOptions } from './types.js';
export type * from './schema.js';
