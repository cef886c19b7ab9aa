"""The list of keys: one page at a time, and no count of the others."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.http import HttpRequest

from django_asherah.admin.overview import get_overview
from django_asherah.admin.rows import attach_infos

MOST_PAGES = 100_000


class KeyChangeList(ChangeList):
    """Reads one row more than it shows, which says whether there is another page."""

    has_next = False

    def get_results(self, request: HttpRequest) -> None:
        """Read this page's rows and what they are."""
        if not 1 <= self.page_num <= MOST_PAGES:
            raise IncorrectLookupParameters
        start = (self.page_num - 1) * self.list_per_page
        window: list[Any] = list(self.queryset[start : start + self.list_per_page + 1])
        self.has_next = len(window) > self.list_per_page
        self.result_list = window[: self.list_per_page]
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count = False
        self.show_admin_actions = bool(self.result_list)
        self.can_show_all = self.multi_page = False
        self.paginator = Paginator(self.result_list, self.list_per_page)
        attach_infos(get_overview(request).context, self.result_list)

    @property
    def previous_url(self) -> str:
        """The query string of the page before, or nothing."""
        return self.get_query_string({PAGE_VAR: self.page_num - 1}) if self.page_num > 1 else ""

    @property
    def next_url(self) -> str:
        """The query string of the next page, or nothing."""
        return self.get_query_string({PAGE_VAR: self.page_num + 1}) if self.has_next else ""
