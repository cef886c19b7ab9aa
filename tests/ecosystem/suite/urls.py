"""The REST API, with its browsable pages."""

from __future__ import annotations

from django.urls import include, path
from rest_framework import filters, routers, serializers, viewsets

from tests.ecosystem.suite.models import Patient


class PatientSerializer(serializers.ModelSerializer):  # type: ignore[type-arg]
    class Meta:
        model = Patient
        fields = "__all__"


class PatientViewSet(viewsets.ModelViewSet):  # type: ignore[type-arg]
    queryset = Patient.objects.order_by("pk")
    serializer_class = PatientSerializer
    filter_backends = (filters.OrderingFilter,)
    ordering_fields = ("name",)


router = routers.DefaultRouter()
router.register("patients", PatientViewSet)
urlpatterns = [path("api/", include(router.urls))]
