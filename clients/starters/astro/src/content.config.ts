import { defineCollection } from 'astro:content';
import { z } from 'astro/zod';
import { createClient, isError } from 'pressroom-client';

const api = createClient({ baseUrl: process.env['PRESSROOM_URL'] ?? 'http://localhost:8000' });
const schema = z.object({
  title: z.string(), slug: z.string(), html: z.string(), excerpt: z.string(), author: z.string(), published_at: z.coerce.date(),
});

/** Articles are kept between builds. A build reads those that the change feed names since the last one. */
const articles = defineCollection({
  schema,
  loader: {
    name: 'pressroom',
    async load({ store, meta, logger, parseData }) {
      const changed = new Set<number>();
      let cursor = meta.get('cursor');
      try {
        await collect();
      } catch (error) {
        if (!isError(error, 'invalid_cursor')) throw error;
        store.clear(); // the database was restored: start from the beginning
        changed.clear();
        cursor = undefined;
        await collect();
      }
      for (const article_id of changed) {
        const id = String(article_id);
        const article = await api.readArticle({ article_id }).catch((error: unknown) => {
          if (isError(error, 'article_not_found')) return null;
          throw error;
        });
        if (!article) {
          store.delete(id);
          continue;
        }
        const { title, html, excerpt, slug, author, published_at } = article;
        const data = await parseData({ id, data: { title, slug, html, excerpt, author: author.name, published_at } });
        store.set({ id, data });
      }
      if (cursor) meta.set('cursor', cursor);
      logger.info(`${changed.size} changed articles`);

      async function collect(): Promise<void> {
        for await (const change of api.changes({ cursor })) {
          cursor = change.cursor;
          changed.add(change.article_id);
        }
      }
    },
  },
});

export const collections = { articles };
