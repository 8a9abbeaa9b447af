# Lists the hubs page by page, in parallel: make -j8 -f hubs.mk
#
# Each recipe is a process of its own. All of them share one token.

PAGES = 0 1 2 3 4 5 6 7

all: $(PAGES:%=hubs-%.json)

hubs-%.json:
	amp-token request GET '/v2/content/hubs?page=$*&size=1' >$@

clean:
	rm -f $(PAGES:%=hubs-%.json)

# The file of a request that failed is deleted, so the next run sends the request again.
.DELETE_ON_ERROR:
.PHONY: all clean
