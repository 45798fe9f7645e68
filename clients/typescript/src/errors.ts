/** Errors of the API, with a type for each `code`. */
import type { components } from './schema.js';

type Responses = components['responses'];

/** The body of any error that the API declares. */
export type ErrorBody = Responses[keyof Responses]['content']['application/json'];
/** The codes of these errors. They never change; messages may. */
export type ErrorCode = ErrorBody['code'];
/** The body of the error with this code. */
export type ErrorOf<Code extends ErrorCode> = Extract<ErrorBody, { code: Code }>;

/** A response that is not successful. */
export class PressroomError<Code extends ErrorCode = ErrorCode> extends Error {
  override readonly name = 'PressroomError';

  constructor(
    readonly status: number,
    /** The code, or `unknown` if the response is not an error of the API, for example one of a proxy. */
    readonly code: Code | 'unknown',
    /** The body. With an unknown code, it may have any shape. */
    readonly body: ErrorOf<Code>,
    readonly response: Response,
    message: string,
  ) {
    super(message);
  }

  /** The identifier under which the server has logged the request. */
  get requestId(): string | null {
    return this.response.headers.get('X-Request-ID');
  }

  /** After how many seconds another attempt may succeed, if the server knows it. */
  get retryAfter(): number | null {
    return secondsOf(this.response.headers.get('Retry-After'));
  }

  /** Return the error of an unsuccessful response. */
  static async from(response: Response): Promise<PressroomError> {
    const text = await response.text();
    const body = parsed(text) as Partial<ErrorBody> | null;
    const code = typeof body?.code === 'string' ? body.code : 'unknown';
    const message = typeof body?.message === 'string' ? body.message : `HTTP ${response.status}`;
    return new PressroomError(response.status, code, body as ErrorBody, response, message);
  }
}

/** Return whether `error` has one of these codes. Its `body` has the type of that error then. */
export function isError<Code extends ErrorCode>(error: unknown, ...codes: Code[]): error is PressroomError<Code> {
  return error instanceof PressroomError && (codes as string[]).includes(error.code);
}

function parsed(text: string): unknown {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' ? value : null;
  } catch {
    return null;
  }
}

/** Return the seconds of a Retry-After header, which may be a date (RFC 9110 §10.2.3). */
function secondsOf(header: string | null): number | null {
  if (header === null) return null;
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(0, seconds);
}
