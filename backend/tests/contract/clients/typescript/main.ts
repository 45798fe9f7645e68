import * as conduitArticles from './conduit/articles.js';
import * as conduitComments from './conduit/comments.js';
import * as conduitFavorites from './conduit/favorites.js';
import * as conduitProfiles from './conduit/profiles.js';
import { signUp as signUpToConduit } from './conduit/session.js';
import * as conduitTags from './conduit/tags.js';
import * as conduitUsers from './conduit/users.js';
import * as addresses from './native/addresses.js';
import * as administration from './native/administration.js';
import * as agents from './native/agents.js';
import * as apiKeys from './native/api_keys.js';
import * as articles from './native/articles.js';
import * as auth from './native/auth.js';
import * as bulk from './native/bulk.js';
import * as changes from './native/changes.js';
import * as comments from './native/comments.js';
import * as favorites from './native/favorites.js';
import * as feeds from './native/feeds.js';
import * as health from './native/health.js';
import * as index from './native/index.js';
import * as media from './native/media.js';
import * as previews from './native/previews.js';
import * as profiles from './native/profiles.js';
import * as reports from './native/reports.js';
import * as revisions from './native/revisions.js';
import * as search from './native/search.js';
import { signUp } from './native/session.js';
import * as tags from './native/tags.js';
import * as trash from './native/trash.js';
import * as users from './native/users.js';
import * as webhooks from './native/webhooks.js';

const native = [
  articles, auth, apiKeys, addresses, search, tags, comments, favorites, profiles, reports, revisions, previews, trash,
  changes, feeds, media, bulk, health, index, webhooks, administration, agents,
  users, // the last one, because it deletes the user
];
const conduit = [
  conduitArticles, conduitComments, conduitFavorites, conduitProfiles, conduitTags, conduitUsers,
];

/** Run the program of each resource. hey-api's clients validate the requests and the responses. */
export async function main(url: string): Promise<void> {
  const session = await signUp(url);
  for (const { run } of native) await run(session);
  const conduitSession = await signUpToConduit(url);
  for (const { run } of conduit) await run(conduitSession);
}
